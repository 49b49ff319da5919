"""The command line. Torch and MPI are imported where they are needed, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from .. import __version__
from ..core import shadows
from ..core.errors import CollectiveError, DivergedError, FailedRunsError, StopRequest, UserError
from ..core.texts import printable, printable_lines
from ..mpi import launcher

if TYPE_CHECKING:
    from pathlib import Path

    from ..mpi.communicator import Comm
    from ..runs.resume import Job

_DESCRIPTION = """\
Trains image classifiers by domain decomposition over MPI: a small CNN on each subimage, in parallel and
without messages, and a dense network that combines their decisions.

commands:
  train    train a model (under mpirun); without arguments the packaged quick-start on an embedded data set
  prepare  make a dataset file from a data set as its publisher ships it
  evaluate all strategies and metrics of a trained model on a data set (under mpirun or alone)
  study    train every run of a study, in groups of ranks (under mpirun)
  scale    measure a point of a strong or weak scaling study (under mpirun)
  report   tables, figures and an HTML page of a study or a scaling study
  predict  classes of new images, by a trained model
  export   a trained model as one graph: ONNX, or an exported program of PyTorch
  plan     who would do what on N ranks, and at what cost; nothing is trained
  bench    measure hpcdd beside plain PyTorch and raw MPI (under mpirun), and its reading beside numpy
  info     what is installed here, and what is wrong with it

examples:
  mpirun -n 4 hpcdd                    (the same as `mpirun -n 4 python -m hpcdd train`)
  mpirun -n 4 hpcdd train --resume     goes on with the newest unfinished run
  hpcdd train --help                   every setting, with its meaning and default
  hpcdd prepare folder cifar10 cifar10.h5

exit codes: 0 done; 1 a defect or a fault on one rank, or runs of a study have failed; 2 a mistake of the user;
3 a loss became NaN or infinite;
74 something can't be written; 75 stopped in good order, or a rank hangs: go on with `train --resume`; 130 Ctrl-C.
"""

COMMANDS = ("train", "prepare", "evaluate", "study", "scale", "report", "predict", "export", "plan", "bench", "info")
_WITH_MPI = ("train", "evaluate", "study", "scale", "bench")
_DEFERENCE = 2.0
"""Seconds that a rank leaves to others that may say the same, or know more, and end the job."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its arguments; default: those of this process.

    Returns:
        The exit code, see :data:`_DESCRIPTION`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks ends no run
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    first = launcher.from_environment().rank == 0
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "train")
    command, arguments = words[0], words[1:]
    if command in _WITH_MPI and not _is_plain(command, arguments):
        work = {"train": _train, "evaluate": _evaluate, "study": _study, "scale": _scale, "bench": _bench}[command]
        return _run_on_all_ranks(work, arguments)
    # What follows needs no MPI; under mpirun one process is enough for it.
    if not first:
        return 0
    try:
        code = _plain(command, arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _report(error)
    except (ImportError, AttributeError) as error:
        if hidden := shadows.hidden():
            return _report(UserError(hidden))
        raise error
    except StopRequest as error:
        _report(error)
        return 128 + error.signum  # nothing is saved that could be gone on with
    except BrokenPipeError:  # whoever reads has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # lest Python's last flush complains
        return 128 + signal.SIGPIPE


def _is_plain(command: str, arguments: Sequence[str]) -> bool:
    """Whether a command that works on all ranks needs one process only, with these arguments."""
    plain = {"--help", "-h", *(["--dry-run"] if command == "study" else [])}
    return bool(plain & set(arguments)) or [command, *arguments[:1]] == ["bench", "io"]


def _plain(command: str, arguments: Sequence[str]) -> int:
    if command == "--version":
        print(f"hpcdd {__version__}")
    elif command in ("-h", "--help"):
        print("usage: hpcdd [COMMAND] [ARGUMENTS]\n\n" + _DESCRIPTION, end="")
    elif command == "train":
        from ..config import loading

        loading.parse(["--help"])
    elif command == "evaluate":
        from ..inference import evaluate_options as of_evaluate

        of_evaluate.parser().parse_args(["--help"])
    elif command == "study":
        _plain_study(arguments)
    elif command == "scale":
        from ..studies import scaling_file

        scaling_file.parser().parse_args(["--help"])
    elif command == "report":
        _report_of(arguments)
    elif command == "bench":
        from ..bench import dispatch as bench

        bench.run_alone(arguments)
    elif command == "prepare":
        from ..data.prepare import conversion

        with _stoppable("prepare"):
            conversion.run(arguments)
    elif command == "predict":
        from ..inference import predict

        with _stoppable("predict"):
            predict.run(arguments)
    elif command == "export":
        from ..inference import export

        with _stoppable("export"):
            export.run(arguments)
    elif command == "plan":
        from ..plan import plan_options as of_plan

        if {"-h", "--help"} & set(arguments):
            of_plan.parser().parse_known_args(list(arguments))
        from ..plan import overview as plan

        plan.run(arguments)
    elif command == "info":
        from . import info

        parser = argparse.ArgumentParser(prog="hpcdd info", description=info.__doc__, epilog="example: hpcdd info")
        if unknown := parser.parse_known_args(arguments)[1]:
            raise UserError(f"info takes no arguments, but {unknown[0]!r} is one")
        return info.run()
    else:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
        raise UserError(f"{command!r} is no command; {hint}")
    return 0


@contextlib.contextmanager
def _stoppable(phase: str) -> Iterator[None]:
    """Ctrl-C and its like end the block by a StopRequest, so that it can take its temporary files away."""
    received: list[int] = []

    def handler(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt  # unlike StopRequest it passes through `except Exception`

    before = launcher.handle(launcher.ENDING, handler)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise StopRequest(received[0] if received else signal.SIGINT, phase) from interrupt
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def _train(comm: Comm, arguments: Sequence[str]) -> None:
    from ..config import loading

    job = comm.on_root(lambda: _settled(arguments))
    if job.print_only or job.done:
        if comm.is_root:
            print(loading.to_yaml(job.config) if job.print_only else f"{job.config.output} is complete\n", end="")
        return
    comm.startup.mark("configuration")
    from ..runs import pipeline

    comm.startup.mark("imports")
    directory = pipeline.train(comm, job)
    _report_at_end(comm, directory, job.config.run.report)


def _settled(arguments: Sequence[str]) -> Job:
    """On root: the job; of a complete run the data set is compared here, for nobody will read it."""
    from ..runs import resume

    job = resume.resolve(arguments)
    if job.done and job.record is not None:
        named, recorded = job.config.data.file, job.record["config"]["data"]["file"]
        if os.path.abspath(named) not in (recorded, os.path.abspath(recorded)):
            from ..data.format import inspect, resolve

            resume.check_facts(job, {**job.record, "dataset": inspect(resolve(named)).fingerprint})
    return job


def _bench(comm: Comm, arguments: Sequence[str]) -> None:
    from ..bench import dispatch as command

    folder = command.run(comm, arguments)
    if folder is not None:
        _report_at_end(comm, folder, wanted=True)


def _evaluate(comm: Comm, arguments: Sequence[str]) -> None:
    from ..inference import evaluate

    evaluate.run(comm, arguments)


def _scale(comm: Comm, arguments: Sequence[str]) -> None:
    from ..studies import scaling_file

    order = comm.on_root(lambda: scaling_file.scaling_request(arguments))
    from ..studies import scaling

    scaling.run(comm, order)


def _study(comm: Comm, arguments: Sequence[str]) -> None:
    from ..studies import study_request as order

    wanted = comm.on_root(lambda: order.study_request(arguments)[0])
    from ..studies import study

    failed = study.run(comm, wanted)
    _report_at_end(comm, wanted.output, any(one.config.run.report for one in wanted.runs))
    words = f"{failed} run{'s have' if failed > 1 else ' has'} failed; see above"
    comm.refuse(FailedRunsError(words) if failed else None)


def _plain_study(arguments: Sequence[str]) -> None:
    """Help, and ``--dry-run``."""
    from ..studies import study_request as order

    if {"-h", "--help"} & set(arguments):
        order.parser().parse_args(["--help"])
    from ..studies import dry_run

    wanted, own = order.study_request(arguments)
    dry_run.run(wanted, own.machine, own=own.own)


def _report_at_end(comm: Comm, folder: Path, wanted: bool) -> None:
    if wanted:
        from ..report import at_end

        comm.on_root(lambda: at_end.write(folder))  # for which the others sleep


def _report_of(arguments: Sequence[str]) -> None:
    from ..report import reports as command

    if {"-h", "--help"} & set(arguments):
        command.parser().parse_args(["--help"])
    command.run(arguments)


def _run_on_all_ranks(work: Callable[[Comm, Sequence[str]], None], arguments: Sequence[str]) -> int:
    from ..mpi import communicator as communication

    try:
        comm = communication.world()
    except UserError as error:
        # Before MPI is there nobody can be asked: one process of each host speaks for it.
        return _report(error) if launcher.from_environment().local_rank == 0 else 0
    try:
        work(comm, arguments)
    except BaseException as error:
        if isinstance(error, CollectiveError) and error.agreed == comm.size:
            # Root alone reports it, by message and exit code: Open MPI kills the rest of a job as soon as one process
            # ends with another code than 0, and that rest might be root.
            return _end(comm, _report(error) if comm.is_root else 0)
        hidden = shadows.hidden() if isinstance(error, ImportError | AttributeError) else None
        _fail(comm, UserError(hidden) if hidden else error)
    return _end(comm, 0)


def _end(comm: Comm, exit_code: int) -> int:
    if comm.diminished:
        from ..mpi import fault_tolerance

        fault_tolerance.leave(comm, exit_code)
    return exit_code


def _fail(comm: Comm, error: BaseException) -> None:
    """Says what this rank has met alone and ends the whole job, so that no rank waits for ever; does not return."""
    where, code, turn = f"hpcdd: rank {comm.rank} of {comm.size} on {socket.gethostname()}", 1, 0
    if isinstance(error, UserError | DivergedError):
        text, code = f"{where}: {error}\n", error.exit_code
        if isinstance(error, DivergedError):  # whoever trains together meets it at the same step
            turn = (not comm.is_root) + error.heard
    elif isinstance(
        error, KeyboardInterrupt
    ):  # before the handlers of hpcdd.mpi.stop are there; Ctrl-C is for all ranks
        text, code, turn = f"{where}: interrupted\n", 128 + signal.SIGINT, not comm.is_root
    else:
        text = f"{where} failed in phase {comm.phase_name}\n{''.join(traceback.format_exception(error))}"
    try:
        time.sleep(turn * _DEFERENCE)
        sys.stderr.write(printable_lines(text))  # at once, so that lines of several ranks don't mix
        sys.stderr.flush()
        time.sleep(0.5)  # MPICH's mpirun may end before it has passed on what an aborting rank printed last
    finally:
        comm.abort(code)


def _report(error: CollectiveError) -> int:
    for line in str(error).splitlines():
        print(f"hpcdd: {printable(line)}", file=sys.stderr)
    return error.exit_code

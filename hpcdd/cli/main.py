"""The command line: dispatch, exit codes, and the end of a job. Torch and MPI are imported where they are needed."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core import shadowed_modules
from ..core.errors import CollectiveError, StopRequest, UserError
from ..core.texts import printable
from ..mpi import launcher
from .parser import Parser

if TYPE_CHECKING:
    from ..mpi.communicator import Comm

COMMANDS = {
    "train": "train a model (under mpirun); without arguments, the packaged quick start on an embedded data set",
    "prepare": "make a dataset file from a data set in its published form",
    "evaluate": "all strategies and metrics of a trained model on a data set (with or without mpirun)",
    "study": "train every run of a study, in groups of ranks (under mpirun)",
    "scale": "measure a point of a strong or weak scaling study (under mpirun)",
    "report": "tables, figures and an HTML page of runs, studies, scaling studies or benchmarks",
    "predict": "predict the classes of new images with a trained model",
    "export": "export a trained model as one graph: ONNX, or a PyTorch exported program",
    "plan": "what N ranks would do, and at what cost; trains nothing",
    "bench": "compare hpcdd with plain PyTorch and raw MPI (under mpirun), and its reading with numpy",
    "info": "what is installed here, and any problems with it",
    "completion": "a script with which bash, zsh or fish completes commands and options",
}
"""Each is a module of this package. It has ``declare(parser)``, and ``run(comm, arguments)`` for all ranks, with
``needs_mpi(arguments)`` where that depends, or ``run_without_mpi(arguments)`` for one process, or both."""
_EXIT_CODES = """\
exit codes:
  0    done
  1    a defect or a fault on one rank, or runs of a study have failed
  2    a user error
  3    a loss became NaN or infinite
  74   something can't be written
  75   stopped cleanly, or a rank hangs: resume with `train --resume`
  130  Ctrl-C
  143  SIGTERM has stopped a command that is not for all ranks"""


def parser() -> Parser:
    """Of all commands; the module of each is imported when its options are needed."""
    made = Parser(prog="hpcdd")
    made.describe(
        "Trains image classifiers by domain decomposition over MPI: a small CNN on each subimage, in parallel and\n"
        "without messages, and a dense network that combines their outputs.",
        "mpirun -n 4 hpcdd                    (the same as `mpirun -n 4 python -m hpcdd train`)",
        "mpirun -n 4 hpcdd train --resume     resumes the newest unfinished run",
        "hpcdd train --help                   every setting, with its meaning and default",
        "hpcdd prepare folder cifar10 cifar10.h5",
        usage="hpcdd [COMMAND] [ARGUMENTS]",
    )
    made.epilog = f"{made.epilog}\n\n{_EXIT_CODES}"
    made.add_argument("--version", action="version", version=f"hpcdd {__version__}")
    made.add_commands("command", {name: (summary, partial(_declare, name)) for name, summary in COMMANDS.items()})
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its arguments; default: those of this process.

    Returns:
        The exit code, see :data:`_EXIT_CODES`.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks ends no run
            stream.reconfigure(errors="backslashreplace")
    command_line = list(sys.argv[1:] if argv is None else argv)
    if not command_line or (command_line[0].startswith("-") and command_line[0] not in ("-h", "--help", "--version")):
        command_line.insert(0, "train")
    command, arguments = command_line[0], command_line[1:]
    if command in COMMANDS and not {"-h", "--help"} & set(arguments):
        module = _module(command)
        if hasattr(module, "run") and (not hasattr(module, "needs_mpi") or module.needs_mpi(arguments)):
            return _run_on_all_ranks(module.run, arguments)
    # What follows needs no MPI; under mpirun one process is enough for it.
    if launcher.from_environment().rank != 0:
        return 0
    try:
        code = 0
        if command in COMMANDS and not {"-h", "--help"} & set(arguments):
            with _stoppable(command):
                code = module.run_without_mpi(arguments) or 0
        else:  # help and version end the process, and anything else is no command
            parser().read(command_line)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _report(error)
    except StopRequest as error:
        print(f"hpcdd: {command} was stopped by {signal.Signals(error.signum).name}", file=sys.stderr)
        return 128 + error.signum  # nothing is saved that could be resumed
    except BrokenPipeError:  # whoever reads has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush does not complain
        return 128 + signal.SIGPIPE


def _module(command: str) -> Any:
    return importlib.import_module(f".{command}", __package__)


def _declare(command: str, parser: Parser) -> None:
    _module(command).declare(parser)


@contextlib.contextmanager
def _stoppable(command: str) -> Iterator[None]:
    """Ctrl-C and its like end the block by a StopRequest, so that it can take its temporary files away."""
    received: list[int] = []

    def handler(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt  # unlike StopRequest it passes through `except Exception`

    before = launcher.handle(launcher.ENDING, handler)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise StopRequest(received[0] if received else signal.SIGINT, command) from interrupt
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def _run_on_all_ranks(work: Callable[[Comm, Sequence[str]], None], arguments: Sequence[str]) -> int:
    from ..mpi import communicator
    from ..mpi.failure import fail

    try:
        comm = communicator.world()
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
        hidden = shadowed_modules.hidden() if isinstance(error, ImportError | AttributeError) else None
        fail(comm, UserError(hidden) if hidden else error)
    return _end(comm, 0)


def _end(comm: Comm, exit_code: int) -> int:
    if comm.diminished:
        from ..mpi import fault_tolerance

        fault_tolerance.leave(comm, exit_code)
    return exit_code


def _report(error: CollectiveError) -> int:
    for line in str(error).splitlines():
        print(f"hpcdd: {printable(line)}", file=sys.stderr)
    return error.exit_code

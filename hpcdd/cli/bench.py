"""``hpcdd bench``: which benchmark is asked for. Each is imported where it is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .parser import Declare, Parsed, Parser, file_path, parse, positive
from .train import report_at_end

if TYPE_CHECKING:
    from ..config.schema import Config
    from ..mpi.communicator import Comm

_COHERENT = """\
A training step of the coherent model, model-parallel and data-parallel, compared with PyTorch's
DistributedDataParallel: the same model, parameters, batches, ranks and threads, interleaved in every round.
Between hosts, PyTorch's messages (gloo) use the fastest network on which all ranks can reach root; the environment
variable GLOO_SOCKET_IFNAME selects another interface. MPI's use what the MPI library is set to.
Every setting can be given as for `hpcdd train`."""
_IO = """\
Measures how fast the boxes of a decomposition are read from files in three layouts (contiguous, in chunks of whole
images, in chunks of the boxes), compared with slices of an array in memory. It uses one thread; the files are written
to a temporary folder and read from the page cache, interleaved in every round. CPU time is measured.
Without FILE or CONFIG: quarters of images of 32 x 32 and of 180 x 180 pixels and eighths of volumes. With a dataset
file or a configuration: its first training images, in its decomposition; fields of the configuration can be given."""
_COLLECTIVES = """\
Latency and bandwidth of every collective that hpcdd uses, at the sizes of the configuration and on a ladder of sizes
and ranks, compared with the bare mpi4py call, and the latency-bandwidth model that fits them best."""
_STEP = """\
Seconds of each kind of training step of a configuration, without messages: of the CNN of each shape of subimage, of the
DNN, of a rank's part of a distributed DNN or the coherent model's; on 1, 2, 4, ... and all ranks at the same time, with
their floating-point operations. Also compares each local CNN with a well-written plain PyTorch loop, on one rank."""
_TRAIN = """\
Compares a whole run of hpcdd, with checkpoints and records, with a plain script that does the same work by hand in
torch, h5py and mpi4py (hpcdd/bench/plain_script.py), in one job, interleaved: seconds in total and by phase, where
hpcdd's time goes, and the time of the run divided by the sum of its steps. A short, uncounted run of both goes first.
The script supports only part of hpcdd: other configurations are refused. Run directories are kept in the current folder
while needed."""
_HEADLINE = """\
Test accuracy against seconds of training, on the same ranks and threads: the global CNN in PyTorch's
DistributedDataParallel (gloo), trained by the section `baseline`; the local CNNs with their DNN; and the coherent model
by transfer, which starts from these. The clock measures training and everything it needs, including building the
networks and DDP, on the slowest rank, and stops while the test split is evaluated and samples are read.
FOLDER receives headline.json and report.html with its figure, which `hpcdd report FOLDER` recreates."""
_DEVICE = """\
Tests and measures one device in one process: the tests marked for devices (in a checkout),
and steps of local CNNs, VGG and fast, in two and three dimensions: hpcdd in fp32 and bf16, torch.compile, 16 CNNs
batched and one after the other, samples on the device and in host memory; each interleaved with plain eager loops in
fp32, one per CNN.
FOLDER receives device.json and report.html, which `hpcdd report FOLDER` recreates."""
_OUTPUT = "machine file to which the results are added, for `hpcdd plan --machine`"


def declare(parser: Parser) -> None:
    """Adds the benchmarks."""
    parser.describe(
        "Compares hpcdd with plain PyTorch, raw MPI and plain numpy.\n"
        "`hpcdd bench coherent --help` and so on have the details.",
        "mpirun -n 2 hpcdd bench coherent configs/cifar10_vgg3.yaml --widths 16,32,64",
        "hpcdd bench io",
        usage="hpcdd bench BENCHMARK [CONFIG] [ARGUMENTS]",
    )
    parser.add_commands("benchmark", _BENCHMARKS, "BENCHMARK")


def needs_mpi(arguments: Sequence[str]) -> bool:
    """Whether a benchmark works on all ranks."""
    return list(arguments[:1]) not in (["io"], ["device"])


def run(comm: Comm, arguments: Sequence[str]) -> None:
    """Called by all ranks; root prints.

    Raises:
        UserError: on all ranks.
    """

    def read() -> tuple[str, argparse.Namespace, Config]:
        parsed = parse("bench", declare, arguments)
        return parsed.command.removeprefix("bench "), parsed.given, _config(parsed)

    name, given, config = comm.on_root(read)
    if name == "coherent":
        from ..bench import coherent_step

        coherent_step.run(comm, config, given.widths, given.rounds, given.steps)
    elif name == "collectives":
        from ..bench import collectives

        collectives.run(comm, config, given.rounds, given.output)
    elif name == "headline":
        from ..bench import headline

        headline.run(comm, config, given.output)
        report_at_end(comm, given.output, wanted=True)
    elif name == "train":
        from ..bench import whole_run

        whole_run.run(comm, config, given.rounds)
    else:
        from ..bench import step_times

        step_times.run(comm, config, given.rounds, given.steps, given.output)


def run_without_mpi(arguments: Sequence[str]) -> None:
    """``bench io`` and ``bench device``, and the help of all benchmarks; needs no MPI.

    Raises:
        UserError: naming every mistake.
    """
    parsed = parse("bench", declare, arguments)
    if parsed.command == "bench device":
        _run_device(parsed.given)
        return
    from ..bench import box_reading

    named = parsed.file or parsed.overrides.tree or parsed.overrides.problems
    box_reading.run(_config(parsed) if named else None, parsed.given.rounds, parsed.given.mib)


def _run_device(given: argparse.Namespace) -> None:
    from ..bench import device
    from ..report import reports

    device.run(given.device, given.output, given.rounds, given.steps)
    reports.write([given.output])


def _config(parsed: Parsed) -> Config:
    """The configuration of a benchmark, whose file may also be a dataset file for ``bench io``."""
    import dataclasses

    import h5py

    from ..config import loading

    file, overrides = parsed.file, parsed.overrides
    path = None if file is None else loading.path_of(file)
    if parsed.command == "bench io" and path is not None and path.is_file() and h5py.is_hdf5(path):
        data = {"file": str(path), **overrides.tree.get("data", {})}
        file, overrides = None, dataclasses.replace(overrides, tree={**overrides.tree, "data": data})
    return loading.load(file, overrides)


def _coherent(parser: Parser) -> None:
    _describe(parser, _COHERENT, "mpirun -n 2 {} configs/cifar10_vgg3.yaml --widths 16,32,64", "[--widths W,W,...]")
    parser.add_argument(
        "--widths",
        type=_widths,
        default=(16, 32, 64),
        metavar="W,W,...",
        help="ladder of model sizes: widths of the global CNN (default: 16,32,64)",
    )
    _add_rounds(parser, 9)
    _add_steps(parser, 5)
    parser.add_fields()


def _collectives(parser: Parser) -> None:
    _describe(parser, _COLLECTIVES, "mpirun -n 4 {} configs/quickstart.yaml --output machine.json", "[--output FILE]")
    _add_rounds(parser, 5)
    parser.add_argument("--output", type=file_path, metavar="FILE", help=_OUTPUT)
    parser.add_fields()


def _device(parser: Parser) -> None:
    usage = "hpcdd bench device --output FOLDER [--device auto|cpu|cuda] [--rounds R] [--steps K]"
    parser.describe(_DEVICE, "hpcdd bench device --output device", usage=usage)
    parser.add_argument(
        "--output", type=file_path, metavar="FOLDER", required=True, help="folder for the results; required"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one (default: auto)"
    )
    _add_rounds(parser, 7)
    _add_steps(parser, 32)


def _headline(parser: Parser) -> None:
    _describe(parser, _HEADLINE, "mpirun -n 2 {} configs/cifar10_fast.yaml --output headline", "--output FOLDER")
    parser.add_argument(
        "--output", type=file_path, metavar="FOLDER", required=True, help="folder for the results; required"
    )
    parser.add_fields()


def _io(parser: Parser) -> None:
    parser.describe(
        _IO,
        "hpcdd bench io cifar10.h5 --decomposition.grid 4,4",
        usage="hpcdd bench io [FILE|CONFIG] [--rounds R] [--mib M] [--section.key VALUE ...]",
    )
    _add_rounds(parser, 15)
    parser.add_argument("--mib", type=positive, default=96, help="MiB of images in each file (default: 96)")
    parser.add_fields("CONFIG", "dataset file, or YAML file (default: built-in cases)")


def _step(parser: Parser) -> None:
    _describe(parser, _STEP, "mpirun -n 4 {} configs/quickstart.yaml --output machine.json", "[--output FILE]")
    _add_rounds(parser, 7)
    _add_steps(parser, 10)
    parser.add_argument("--output", type=file_path, metavar="FILE", help=_OUTPUT)
    parser.add_fields()


def _train(parser: Parser) -> None:
    _describe(parser, _TRAIN, "mpirun -n 2 {} configs/quickstart_vgg3.yaml --rounds 5", "[--rounds R]")
    _add_rounds(parser, 3)
    parser.add_fields()


_BENCHMARKS: dict[str, tuple[str, Declare]] = {
    "coherent": ("a step of the coherent model compared with PyTorch's DDP (under mpirun)", _coherent),
    "collectives": ("the collectives of a run compared with bare mpi4py calls (under mpirun)", _collectives),
    "device": ("tests and steps on one GPU compared with eager PyTorch (one process)", _device),
    "headline": ("accuracy against time, compared with the global CNN in PyTorch's DDP (under mpirun)", _headline),
    "io": ("reading boxes from files of three layouts (one process)", _io),
    "step": ("training steps of a run's CNNs and DNN (under mpirun)", _step),
    "train": ("a whole run compared with a plain script (under mpirun)", _train),
}


def _describe(parser: Parser, text: str, example: str, option: str) -> None:
    usage = f"mpirun -n N {parser.prog} [CONFIG] {option} [--section.key VALUE ...]"
    parser.describe(text, example.format(parser.prog), usage=usage)


def _add_rounds(parser: Parser, rounds: int) -> None:
    help_ = f"number of rounds; each measures everything once (default: {rounds})"
    parser.add_argument("--rounds", type=positive, default=rounds, metavar="R", help=help_)


def _add_steps(parser: Parser, steps: int) -> None:
    parser.add_argument(
        "--steps", type=positive, default=steps, metavar="K", help=f"steps per measurement (default: {steps})"
    )


def _widths(text: str) -> tuple[int, ...]:
    widths = tuple(int(width) if width.isdecimal() else 0 for width in text.split(","))
    if min(widths) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of whole numbers of 1 or more")
    return widths

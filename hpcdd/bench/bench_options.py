"""The command line of ``hpcdd bench``; knows neither torch nor MPI."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..config.parsers import COMMON, file_path, positive
from ..core.errors import UserError

_COHERENT = """\
A training step of the coherent model, model-parallel and data-parallel, beside PyTorch's DistributedDataParallel:
the same model, parameters, batches, ranks and threads, taking turns in every round.
Over several hosts PyTorch's messages (gloo) take the fastest network on which all ranks reach root; the environment
variable GLOO_SOCKET_IFNAME names another interface. MPI's take what the MPI library is told.
Every field of the configuration can be given as for `hpcdd train`.
"""
_IO = """\
Speed of reading the boxes of a decomposition from files of three layouts (contiguous, in chunks of whole images, in
chunks of the boxes), beside slices of an array in memory. One thread; the files are made in a temporary folder and
read from the page cache; all take turns in every round. Processor time is taken.
Without FILE or CONFIG: quarters of images of 32 x 32 and of 180 x 180 pixels and eighths of volumes. With a dataset
file or a configuration: its first training images, in its decomposition; fields of the configuration can be given.
"""


_COLLECTIVES = """\
Latency and bandwidth of every collective that hpcdd uses, at the sizes of the configuration and on a ladder of sizes
and ranks, beside a bare mpi4py call of the same; and the latency-bandwidth model that fits them best.
"""
_OUTPUT = "machine file that takes the results beside those that it has, for `hpcdd plan --machine`"
_STEP = """\
Seconds of each kind of training step of a configuration, messages apart: of the CNN of each shape of subimage, of the
DNN, of a rank's part of the DNN in the coherent model; on 1, 2, 4, ... and all ranks at the same time. With their
floating point operations. And of each local CNN beside a plain PyTorch loop, as a good engineer writes it, on one rank.
"""
_TRAIN = """\
A whole run of hpcdd, with checkpoints and records, beside a plain script that does the same work by hand with torch,
h5py and mpi4py (hpcdd/bench/plain_script.py), in one job, by turns: seconds whole and by phase, where hpcdd's time
goes, and the run over the sum of its steps. A shortened run of both, which does not count, goes ahead.
The script can't do everything: a configuration that asks for more is refused. Run directories lie in the current folder
while they are needed.
"""
_HEADLINE = """\
Test accuracy against seconds of training, on the same ranks and threads: the global CNN in PyTorch's
DistributedDataParallel (gloo), trained by the section `baseline`; the local CNNs with their DNN; and the coherent model
by transfer, which goes on from there. The clock counts training and all that belongs to it, with the making of the
networks and of DDP, on the slowest rank, and stops while the test split is evaluated and samples are read.
FOLDER takes headline.json and report.html with its figure, which `hpcdd report FOLDER` draws again.
"""
NAMES = ("coherent", "collectives", "headline", "io", "step", "train")


def parser() -> argparse.ArgumentParser:
    """Of all benchmarks; what it does not know belongs to the configuration."""
    top = argparse.ArgumentParser(
        prog="hpcdd bench",
        usage=f"hpcdd bench {{{','.join(NAMES)}}} ...",
        description="Measures hpcdd beside plain PyTorch, raw MPI and plain numpy.",
        epilog="`hpcdd bench coherent --help` and so on say more\n\n"
        "examples:\n  mpirun -n 2 hpcdd bench coherent configs/cifar10_vgg3.yaml --widths 16,32,64\n  hpcdd bench io",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    which = top.add_subparsers(dest="what", required=True, metavar=f"{{{','.join(NAMES)}}}")
    coherent = _command(
        which,
        "coherent",
        "a step of the coherent model beside PyTorch's DDP (under mpirun)",
        _COHERENT,
        usage="mpirun -n N hpcdd bench coherent [CONFIG] [--widths W,W,...] [--section.key VALUE ...]",
        example="mpirun -n 2 hpcdd bench coherent configs/cifar10_vgg3.yaml --widths 16,32,64",
    )
    coherent.add_argument(
        "--widths",
        type=_widths,
        default=(16, 32, 64),
        help="ladder of model sizes: widths of the global CNN (default: 16,32,64)",
    )
    coherent.add_argument("--rounds", type=positive, default=9, help="rounds in which all take a turn (default: 9)")
    coherent.add_argument("--steps", type=positive, default=5, help="steps of a turn (default: 5)")
    collectives = _command(
        which,
        "collectives",
        "the collectives of a run beside bare mpi4py calls (under mpirun)",
        _COLLECTIVES,
        usage="mpirun -n N hpcdd bench collectives [CONFIG] [--output FILE] [--section.key VALUE ...]",
        example="mpirun -n 4 hpcdd bench collectives configs/quickstart.yaml --output machine.json",
    )
    collectives.add_argument("--rounds", type=positive, default=5, help="rounds in which both take turns (default: 5)")
    collectives.add_argument("--output", type=file_path, help=_OUTPUT)
    headline = _command(
        which,
        "headline",
        "accuracy against time, beside the global CNN in PyTorch's DDP (under mpirun)",
        _HEADLINE,
        usage="mpirun -n N hpcdd bench headline [CONFIG] --output FOLDER [--section.key VALUE ...]",
        example="mpirun -n 2 hpcdd bench headline configs/cifar10_headline.yaml --output headline",
    )
    headline.add_argument("--output", type=file_path, metavar="FOLDER", help="takes the results; has to be named")
    io = _command(
        which,
        "io",
        "reading boxes from files of three layouts (one process)",
        _IO,
        usage="hpcdd bench io [FILE|CONFIG] [--rounds R] [--mib M] [--section.key VALUE ...]",
        example="hpcdd bench io cifar10.h5 --decomposition.grid 4,4",
    )
    io.add_argument("--rounds", type=positive, default=15, help="rounds in which all take a turn (default: 15)")
    io.add_argument("--mib", type=positive, default=96, help="MiB of images in each file (default: 96)")
    step = _command(
        which,
        "step",
        "training steps of a run's CNNs and DNN (under mpirun)",
        _STEP,
        usage="mpirun -n N hpcdd bench step [CONFIG] [--output FILE] [--section.key VALUE ...]",
        example="mpirun -n 4 hpcdd bench step configs/quickstart.yaml --output machine.json",
    )
    step.add_argument("--rounds", type=positive, default=7, help="rounds in which all take a turn (default: 7)")
    step.add_argument("--steps", type=positive, default=10, help="steps of a turn (default: 10)")
    step.add_argument("--output", type=file_path, help=_OUTPUT)
    train = _command(
        which,
        "train",
        "a whole run beside a plain script (under mpirun)",
        _TRAIN,
        usage="mpirun -n N hpcdd bench train [CONFIG] [--rounds R] [--section.key VALUE ...]",
        example="mpirun -n 2 hpcdd bench train configs/quickstart.yaml --rounds 5",
    )
    train.add_argument("--rounds", type=positive, default=3, help="rounds in which both take a turn (default: 3)")
    return top


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What stands behind ``hpcdd bench``, and the words that belong to the configuration.

    Raises:
        UserError: no benchmark is named, or a number is none.
    """
    if not arguments or arguments[0] not in NAMES:
        found = f"{arguments[0]!r} is none of them" if arguments else "none is named"
        listed = f"{', '.join(f'`{name}`' for name in NAMES[:-1])} or `{NAMES[-1]}`"
        raise UserError(f"bench measures {listed}, and {found}; see `hpcdd bench --help`")
    try:
        return parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"bench: {error}") from error


def _command(
    which: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_: str,
    description: str,
    *,
    usage: str,
    example: str,
) -> argparse.ArgumentParser:
    return which.add_parser(
        name,
        help=help_,
        usage=usage,
        description=description,
        epilog=f"example: {example}",
        **COMMON,
    )


def _widths(text: str) -> tuple[int, ...]:
    widths = tuple(int(width) if width.isdecimal() else 0 for width in text.split(","))
    if min(widths) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1, with commas")
    return widths

"""``hpcdd.train``: a run from Python, in one process or on all ranks of a communicator."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..artifacts.results import Results
from ..config.schema import Config
from ..core import heap
from ..core.errors import CollectiveError, UserError
from ..mpi import communicator, launcher
from ..mpi.communicator import Comm
from ..mpi.failure import fail
from ..mpi.runtime import FINALIZE_TIMEOUTS
from . import pipeline, resume
from .run_directory import RunDirectory

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class TrainingRun:
    """A complete run; the same on every rank.

    Attributes:
        directory: the run directory, with results.json and model.h5.
    """

    directory: Path

    @property
    def results(self) -> Results:
        """The content of results.json, read from the file."""
        return Results.read(RunDirectory(self.directory).results)


def train(config: Config, *, comm: MPI.Comm | None = None) -> TrainingRun:
    """Trains like ``hpcdd train``: local CNNs, DNN and coherent model; writes results.json and model.h5.

    Collective over ``comm``. If ``config.output`` names an unfinished run, it is resumed; a complete run
    is returned unchanged. While the function runs, Ctrl-C and the signals of a batch system stop the run cleanly,
    with a checkpoint; signal handlers and torch's number of threads are restored afterwards.

    Args:
        config: the same on every rank; root's is used.
        comm: a communicator of mpi4py, which is duplicated; default: COMM_WORLD, or only this process without mpirun.

    Returns:
        The run, on every rank.

    Raises:
        UserError: on all ranks, before any training: a setting is invalid, or this is not the main thread.
        DivergedError: in one process, the loss became NaN or infinite.
        StopRequest: on all ranks: the run was stopped by a signal, and can be resumed.
        WriteError: on all ranks: the results can't be written.

    An exception on only one of several ranks ends the whole job, with that rank's message.
    """
    with ranks_of(comm) as ranks:
        job = ranks.on_root(lambda: resume.job_of(config))
        return TrainingRun(Path(str(job.config.output)) if job.done else pipeline.train(ranks, job))


@contextlib.contextmanager
def ranks_of(comm: MPI.Comm | None) -> Iterator[Comm]:
    """A duplicate of ``comm``, by default of COMM_WORLD, for what a script calls; collective.

    After the block the caller's signal handlers, torch's number of threads, the heap and the time limit for the end of
    MPI are as before. An exception on only one of several ranks ends the job.

    Raises:
        UserError: this is not the main thread, which gets the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("hpcdd was called in a thread; call it in the main thread, which receives the signals")
    ranks = communicator.world() if comm is None else communicator.duplicate_of(comm)
    ranks.restart_clock()
    threads, timeouts = torch.get_num_threads(), FINALIZE_TIMEOUTS.copy()
    handlers = {signum: signal.getsignal(signum) for signum in launcher.SIGNALS}
    try:
        yield ranks
    except BaseException as error:
        if ranks.size > 1 and not (isinstance(error, CollectiveError) and error.agreed == ranks.size):
            fail(ranks, error)
        raise
    finally:
        FINALIZE_TIMEOUTS[:] = timeouts
        ranks.free()
        torch.set_num_threads(threads)
        heap.release()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

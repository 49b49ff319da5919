"""What happens to an exception in a phase: it ends the job at once, or it is kept until all ranks agree on it."""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable, Iterator

from ..core.errors import DivergedError, RunError, StopRequest, UserError
from ..mpi.communicator import Comm


class FailurePolicy:
    """One rank's side.

    Args:
        comm: all ranks of the run.
        wanted: whether this rank knows of a signal that asks to stop.
        study: whether the run is one of a study, in which a failure ends its run only.
    """

    def __init__(self, comm: Comm, wanted: Callable[[], bool], *, study: bool) -> None:
        self._comm, self._wanted, self._study = comm, wanted, study
        self._failure: tuple[str, int] | None = None

    @contextlib.contextmanager
    def kept(self, *, independent: bool) -> Iterator[None]:
        """What ends the block is kept for :meth:`agree`.

        That is a request to stop, on which all ranks will agree: this rank knows of the signal, or trains with one that
        does. In a study it is also a divergence, which all ranks of one training notice, and,
        where this rank works ``independent`` of the others, any exception. Anything else ends the whole job: others
        wait for a message from this rank.
        """
        try:
            yield
        except StopRequest as request:
            if not (request.shared or self._wanted()):  # nobody else will stop
                raise
        except Exception as error:
            if not self._study or not (independent or isinstance(error, DivergedError)):
                raise
            where = f"rank {self._comm.rank} of {self._comm.size} on {socket.gethostname()}"
            if isinstance(error, DivergedError):
                self._failure = "" if error.heard else str(error), error.exit_code
            elif isinstance(error, UserError):
                self._failure = f"{where}: {error}", error.exit_code
            else:
                trace = traceback.format_exc().rstrip()
                self._failure = f"{where} failed in phase {self._comm.phase_name}\n{trace}", 1

    def agree(self, poll: Callable[[], None]) -> None:
        """Collective, at the end of a phase; of a run that is not one of a study without effect and message.

        Args:
            poll: called while this rank waits for the others.

        Raises:
            RunError: on all ranks, with what any of them has kept.
        """
        if not self._study or not self._comm.maximum(int(self._failure is not None), poll):
            return
        failures = [failure for failure in self._comm.allgather_object(self._failure) if failure is not None]
        error = RunError(
            "\n".join(dict.fromkeys(text for text, _ in failures if text)), max(code for _, code in failures)
        )
        error.agreed = self._comm.size
        raise error

"""The failures that hpcdd tells apart, and the exit code of each."""

from __future__ import annotations

import signal


class UserError(ValueError):
    """Something that the user can mend: a configuration, a data set, a missing device.

    Raised on all ranks alike (see :meth:`hpcdd.comm.Comm.on_root`), printed once, without a traceback.
    The message says what was found, what was expected and what to do.
    """

    exit_code = 2


class ReadError(UserError):
    """Pixels that can't be read. One rank may meet them alone, in the middle of a phase.

    Where ranks agree (:meth:`hpcdd.comm.Comm.on_all`) it is like any :class:`UserError`; elsewhere it ends the whole
    job with its message.
    """


class DivergedError(ArithmeticError):
    """A loss that is no longer finite. Met by one rank alone, which ends the whole job with this message."""

    exit_code = 3


class StopRequest(Exception):  # noqa: N818 - not an error: the wish of the user or of the batch system
    """A signal asked the job to stop; raised at a step boundary, on all ranks of the job alike.

    Attributes:
        signum: the number of the signal, e.g. ``signal.SIGTERM``.
    """

    def __init__(self, signum: int, phase: str) -> None:
        super().__init__(f"asked to stop by {signal.Signals(signum).name} in phase {phase}; the run is not complete")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: what a shell reports for a process that the signal ended."""
        return 128 + self.signum

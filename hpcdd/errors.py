"""The failures that hpcdd tells apart, and the exit code of each."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class UserError(ValueError):
    """Something that the user can mend: a configuration, a data set, a missing device.

    Raised on all ranks alike (see :meth:`hpcdd.comm.Comm.on_root`), printed once, without a traceback.
    The message says what was found, what was expected and what to do.
    """

    exit_code = 2
    agreed = False
    """Whether all ranks of a communicator have raised it together, and its message names them."""


class ReadError(UserError):
    """Pixels that can't be read. One rank may meet them alone, in the middle of a phase.

    Where ranks agree (:meth:`hpcdd.comm.Comm.on_all`) it is like any :class:`UserError`; elsewhere it ends the whole
    job with its message.
    """


class WriteError(UserError):
    """Something that can't be written: a full disk, a lost permission. What was written before stays whole."""

    exit_code = 74  # EX_IOERR of sysexits.h


class InUseError(UserError):
    """A run directory in which another job is at work."""


class FailedRunsError(UserError):
    """Runs of a study have failed, each with a message of its own; the others are complete."""

    exit_code = 1


Found = tuple[type[UserError], str, bool]
"""Of one rank: the kind of an error, its text, and whether it is :attr:`UserError.agreed` already."""


def agreed_kind(error: UserError) -> type[UserError]:
    """What an error is on all ranks, once they know of it."""
    return next((kind for kind in (WriteError, InUseError) if isinstance(error, kind)), UserError)


def agreed(found: Sequence[Found | None]) -> UserError | None:
    """One error from what all ranks have found, each text once with its ranks; None where nothing is wrong.

    Args:
        found: in rank order; None of a rank that has found nothing.
    """
    ranks: dict[tuple[str, bool], list[int]] = {}
    for rank, problem in enumerate(found):
        if problem is not None:
            ranks.setdefault(problem[1:], []).append(rank)
    if not ranks:
        return None
    kinds = {problem[0] for problem in found if problem is not None}
    texts = [text if known else f"{text} (rank {', '.join(map(str, who))})" for (text, known), who in ranks.items()]
    error = (kinds.pop() if len(kinds) == 1 else UserError)("\n".join(texts))
    error.agreed = True
    return error


class DamagedError(Exception):
    """A file of hpcdd's own whose content is not what was written: a flipped bit, a lost end."""


class DivergedError(ArithmeticError):
    """A loss that is no longer finite. Met by one rank alone, which ends the whole job with this message."""

    exit_code = 3


class RunError(Exception):
    """What has ended one run of a study, on all its ranks alike; other runs go on.

    Attributes:
        exit_code: that a job of this run alone would have had.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


RESUME = 75
"""Exit code of a run that was stopped in good order and goes on with ``--resume`` (EX_TEMPFAIL of sysexits.h)."""


class StopRequest(Exception):  # noqa: N818 - not an error: the wish of the user or of the batch system
    """A signal asked the job to stop; raised at a step boundary, on all ranks of the job alike.

    Attributes:
        signum: the number of the signal, e.g. ``signal.SIGTERM``.
        phase: in which it met the job.
    """

    def __init__(self, signum: int, phase: str, more: str = "") -> None:
        super().__init__(
            f"asked to stop by {signal.Signals(signum).name} in phase {phase}; the run is not complete{more}"
        )
        self.signum = signum
        self.phase = phase

    @property
    def exit_code(self) -> int:
        """:data:`RESUME` for the signals of batch systems; 130, as in a shell, for Ctrl-C."""
        return 128 + self.signum if self.signum == signal.SIGINT else RESUME

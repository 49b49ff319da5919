"""The failures that hpcdd distinguishes, and their exit codes."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class CollectiveError(Exception):
    """An error that all ranks of a communicator can raise together. An error on a single rank ends the whole job.

    Attributes:
        agreed: number of ranks that raised it together; 0 for an error on this rank only.
        exit_code: exit code of the job that it ends.
    """

    # Set only by agreements: Comm.on_root and Comm.on_all, Stop.agree, and that of a study at the end of a phase.
    agreed = 0
    exit_code = 1


class UserError(CollectiveError, ValueError):
    """A mistake that the user can fix: in a configuration, a data set, or a missing device.

    Printed without a traceback: once if all ranks have agreed on it, otherwise with the number and host of its rank.
    The message says what was found, what was expected and what to do.
    """

    exit_code = 2


class WriteError(UserError):
    """A file can't be written, because a disk is full or a permission is missing. Files written earlier stay intact."""

    exit_code = 74  # EX_IOERR of sysexits.h


class InUseError(UserError):
    """A run directory that another job is using."""


class FailedRunsError(UserError):
    """Runs of a study have failed, each with its own message; the others are complete."""

    exit_code = 1


RankProblem = tuple[type[UserError], str, bool]
"""Of one rank: the kind of an error, its text, and whether some ranks have agreed on it and it names them."""


def agreed(problems: Sequence[RankProblem | None]) -> UserError | None:
    """One error from what all ranks have found, each text once with its ranks; None where nothing is wrong.

    Args:
        problems: in rank order; None of a rank that has found nothing.
    """
    ranks: dict[tuple[str, bool], list[int]] = {}
    for rank, problem in enumerate(problems):
        if problem is not None:
            ranks.setdefault(problem[1:], []).append(rank)
    if not ranks:
        return None
    kinds = {problem[0] for problem in problems if problem is not None}
    texts = [text if known else f"{text} (rank {', '.join(map(str, who))})" for (text, known), who in ranks.items()]
    error = (kinds.pop() if len(kinds) == 1 else UserError)("\n".join(texts))
    error.agreed = len(problems)
    return error


class DamagedError(Exception):
    """A file of hpcdd's own whose content is not what was written: a flipped bit, a lost end."""


class DivergedError(ArithmeticError):
    """A loss that is no longer finite; all ranks that train together raise it at the same step.

    Attributes:
        heard: whether the numbers of another rank, whose message says more, are not finite.
    """

    exit_code = 3

    def __init__(self, text: str, *, heard: bool = False) -> None:
        super().__init__(text)
        self.heard = heard


class RunError(CollectiveError):
    """An error that ends one run of a study, on all its ranks; other runs continue."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


RESUME = 75
"""Exit code of a run that was stopped cleanly and can be resumed (EX_TEMPFAIL of sysexits.h)."""


class StopRequest(CollectiveError):  # noqa: N818 - not an error: the wish of the user or of the batch system
    """A signal asked the job to stop. A training raises it at a step boundary, all ranks at the end of the phase.

    Attributes:
        signum: number of the signal, such as ``signal.SIGTERM``.
        phase: name of the phase in which the job was asked to stop.
        exit_code: 130 for Ctrl-C, otherwise 75.
        shared: whether all ranks that train together raise it behind the same step, whichever of them got the signal.
    """

    shared = False

    def __init__(self, signum: int, phase: str, more: str = "") -> None:
        super().__init__(
            f"asked to stop by {signal.Signals(signum).name} in phase {phase}; the run is not complete{more}"
        )
        self.signum = signum
        self.phase = phase
        self.exit_code = 128 + signum if signum == signal.SIGINT else RESUME  # 130, as in a shell, for Ctrl-C

    def saying(self, more: str) -> StopRequest:
        """The same request with more words."""
        request = StopRequest(self.signum, self.phase, more)
        request.agreed = self.agreed
        return request

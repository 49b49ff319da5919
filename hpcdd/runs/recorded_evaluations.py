"""What the evaluations of a run find at the end of its phases: in this job, or in an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..artifacts.evaluation_cache import Pieces
from ..phases.attribution import Attribution
from .session import RunSession

Found = dict[str, dict[str, Any]]
"""By split what results.json says of its accuracies."""


class Evaluations:
    """Every method is called by all ranks.

    Args:
        session: of the job.

    Attributes:
        accuracy: by split, for results.json, as far as it is known.
    """

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self.accuracy: Found = {split: {} for split in session.context.problem.samples}

    def take(self, phase: str, found: Found, examine: Callable[[Attribution], Pieces]) -> None:
        """Takes over what an evaluation has found, and examines the decisions behind it.

        Root keeps both for a job that resumes the run, with what the gather cost.

        Args:
            phase: that was evaluated.
            found: its accuracies; empty on an idle rank.
            examine: gives root its pieces of decisions.h5; collective over the workers.
        """
        session, context, pieces = self._session, self._session.context, Pieces()
        with session.phase("examination"):
            if context.team is not None:
                pieces = examine(Attribution(context.team, context.examined))
        for split, accuracies in found.items():
            self.accuracy[split] |= accuracies
        if context.comm.is_root:
            costs = {}
            if phase == "dnn" and "gather" in session.timer.seconds:
                seconds = session.timer.seconds["gather"]
                costs["gather"] = {"seconds": seconds, **asdict(context.comm.traffic["gather"])}
            session.storage.remember(phase, {"accuracy": found, "costs": costs}, pieces)

    def recall(self, phase: str, steps: int) -> bool:
        """Takes over what an earlier job has found, unless this one has trained the network on.

        Args:
            phase: that may have been evaluated.
            steps: that the network was trained in this job; root's count.

        Returns:
            Whether there was anything.
        """
        evaluated = self._session.storage.evaluated
        if not self._session.context.comm.broadcast_object(phase in evaluated and not steps):
            return False
        for split, accuracies in evaluated[phase]["accuracy"].items():
            self.accuracy[split] |= accuracies
        return True

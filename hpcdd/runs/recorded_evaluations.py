"""What the evaluations of a run find at the end of its phases: in this job, or in an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..artifacts.evaluation_cache import Arrays
from ..phases.attribution import Attribution
from .session import RunSession

Accuracies = dict[str, dict[str, Any]]
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
        self.accuracy: Accuracies = {split: {} for split in session.context.problem.samples}

    def record(self, phase: str, accuracies: Accuracies, attribute: Callable[[Attribution], Arrays]) -> None:
        """Records the accuracies of an evaluation, and attributes the predictions behind them.

        Root stores both for a job that resumes the run, with what the gather cost.

        Args:
            phase: that was evaluated.
            accuracies: of the evaluation; empty on an idle rank.
            attribute: gives root its arrays of decisions.h5; collective over the workers.
        """
        session, context, arrays = self._session, self._session.context, Arrays()
        with session.phase("examination"):
            if context.team is not None:
                arrays = attribute(Attribution(context.team, context.attribution_rows))
        for split, of_split in accuracies.items():
            self.accuracy[split] |= of_split
        if context.comm.is_root:
            costs = {}
            if phase == "dnn" and "gather" in session.timer.seconds:
                seconds = session.timer.seconds["gather"]
                costs["gather"] = {"seconds": seconds, **asdict(context.comm.traffic["gather"])}
            session.storage.add_evaluation(phase, {"accuracy": accuracies, "costs": costs}, arrays)

    def recall(self, phase: str, steps: int) -> bool:
        """Reads what an earlier job has recorded, unless this one has trained the network further.

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

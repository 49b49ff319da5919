"""CNNs of one shape in batched steps compared with the same one after the other, in one process, interleaved."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ..core.errors import StopRequest
from ..core.interleaved_timing import quartiles
from ..data.problem import Problem
from ..data.samples import Subimages
from ..parallel.team import Team
from ..phases.local import create_local_cnn
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.status import Hooks
from ..training.trainer import Member, train_batched
from . import single_steps
from .alternating import Turns, long_enough
from .rank_ladder import spread


def compare(team: Team, problem: Problem, samples: Mapping[int, Subimages], rounds: int, number: int) -> str:
    """A line for the user: a step of all of them in both ways, and the ratio.

    Args:
        team: of one rank, which owns these subdomains.
        problem: what is to be solved.
        samples: by subdomain the training split; of one shape, two or more.
        rounds: turns of each that count; one more warms up.
        number: steps of a turn.
    """
    config, device = team.config, team.placement.device
    rows = problem.samples["train"]
    with contextlib.ExitStack() as stack:
        one_by_one = single_steps.local(team, problem, samples, stack)
        (batch,) = single_steps.batches(rows, config.local.batch_of(rows), 1, device)
        turns = Turns(number, rounds + 1, lambda: single_steps.finish(device), lambda: one_by_one(batch))
        classes, width = problem.info.num_classes, problem.widths.local_width
        members = [
            Member(s, create_local_cnn(config, s, x.shape, classes, width).to(device), x, None, NullCheckpointManager())
            for s, x in samples.items()
        ]
        settings = long_enough(config.local, rows, turns)
        with contextlib.suppress(StopRequest):
            train_batched(members, settings, seed=config.seed, hooks=Hooks(step=turns.boundary))
    batched, unbatched = turns.seconds[1:], turns.others[1:]
    low, middle, high = quartiles([b / a for a, b in zip(batched, unbatched, strict=True)])
    return (
        f"{len(samples)} of them batched {spread(quartiles(batched), 1e-3)} ms, one after the other "
        f"{spread(quartiles(unbatched), 1e-3)} ms, ratio {middle:.2f} ({low:.2f} to {high:.2f})"
    )

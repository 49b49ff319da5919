"""One point of a scaling study: a problem on some ranks, step by step, every step timed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..bench import single_steps
from ..bench.rank_ladder import set_up
from ..config.scaling_study import Phase
from ..config.schema import Config
from ..core.errors import UserError
from ..data import sample_storage
from ..data.problem import Problem, check_shards
from ..data.reading import BoxReader
from ..data.samples import SideBySide
from ..mpi.communicator import Comm
from ..phases.coherent import coherent_parameters
from ..phases.gather import gather_features
from ..training.precision import SECTIONS


@dataclass(frozen=True)
class Timing:
    """One measurement of one phase, on root.

    Attributes:
        slowest, fastest: seconds of each step on the slowest and on the fastest of the ranks that work in it, those of
            the warm-up first.
        seconds: of all counted steps, on the rank that took longest.
        calls, bytes: MPI calls per step, and payload bytes sent and received: of the rank that has most.
    """

    slowest: list[float]
    fastest: list[float]
    seconds: float
    calls: float
    bytes: float


_OfRank = tuple[list[float], float, float, float]
"""Of one rank: seconds of every step, of all counted steps, and their calls and bytes per step."""


class ScalingPoint:
    """The problem on the ranks of one communicator; each method is called by all of them.

    Args:
        comm: the ranks.
        config: of the study.
        phases: that will be measured.
        problem: what is to be solved there.
        reader: of its images.
        stack: holds what is set up.

    Attributes:
        config: of the study, with the precisions of these ranks' devices in the place of ``auto``.

    Raises:
        UserError: on all ranks, if batches have too few samples for the ranks, a device is missing or does not compute
            in a phase's precision, or the user's own CNN fails on one rank; on one rank, if the file is damaged there.
    """

    def __init__(
        self,
        comm: Comm,
        config: Config,
        phases: Sequence[Phase],
        problem: Problem,
        reader: BoxReader,
        stack: contextlib.ExitStack,
    ) -> None:
        self._comm, self._problem, self._stack = comm, problem, stack
        trained = {_SECTIONS[phase] for phase in phases} & set(SECTIONS)
        self._layout, self.config, self._team = set_up(comm, config, problem, sorted(trained))
        config, self._placement = self.config, self._layout.placements[comm.rank]
        check_shards(config, problem, self._layout)
        if "alone" in phases and self._layout.replicas > 1:
            raise UserError(
                f"phase alone runs one rank at a time, but on {comm.size} ranks each CNN is trained by "
                f"{self._layout.replicas}; use at most {self._layout.num_subdomains} ranks, or leave it out"
            )
        self._storage = sample_storage.decide(comm, config, problem, self._layout).of(comm.rank)
        if self._storage == "stream":
            raise UserError(
                "scale measures steps on samples in memory, but these samples would be streamed from the file; use "
                "data.storage memory, or a smaller data.subset"
            )
        start = time.perf_counter()
        data = problem.read(reader, self._placement.subdomains, self._placement.device, self._storage)
        self._samples = {s: splits["train"] for s, splits in data.items()}
        self._reading = time.perf_counter() - start
        self._reader = reader
        self._steps: dict[Phase, single_steps.Step] = {}

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the ranks, see :meth:`hpcdd.decomposition.rank_layout.RankLayout.warnings`."""
        return self._layout.warnings()

    def facts(self) -> dict[str, Any]:
        """Of the point, for its record; the same on all ranks, but for this rank's ``reading_seconds``."""
        problem, config = self._problem, self.config
        rows = problem.samples["train"]
        return {
            "subdomains": len(problem.decomposition),
            "image_shape": list(problem.info.image_shape),
            "replicas": self._layout.replicas,
            "places": [(p.host, p.device, p.threads, len(p.subdomains)) for p in self._layout.placements],
            "parameters": {
                "local": list(dict.fromkeys(problem.widths.local_parameters)),
                "coherent": coherent_parameters(problem, config),
            },
            "in_run": {
                "local": config.local.epochs * config.local.steps_per_epoch(rows),
                "gather": 1,
                "dnn": config.aggregation.epochs * config.aggregation.steps_per_epoch(rows),
                "coherent": len(config.coherent.starts)
                * config.coherent.epochs
                * config.coherent.steps_per_epoch(rows),
            },
            "reading_seconds": self._reading,
        }

    def measure(self, phase: Phase, warm_up: int, counting: int) -> Timing | None:
        """One measurement: that many steps of a phase, warm-up first, after a barrier.

        Returns:
            On root; None elsewhere.
        """
        comm = self._comm
        step, rows = self._step(phase), self._problem.samples["train"]
        size = getattr(self.config, _SECTIONS[phase]).batch_of(rows)
        batches = single_steps.batches(rows, size, warm_up + counting, self._placement.device)
        measured: _OfRank | None = None
        for working in range(comm.size if phase == "alone" else 1):
            comm.maximum(0)
            if phase != "alone" or working == comm.rank:
                measured = None if step is _idle else self._timed(step, batches, warm_up)
        comm.maximum(0)  # a rank that has finished waits here; in the gather it would slow the others down
        everyone = comm.gather_object(measured)
        if everyone is None:
            return None
        times, totals, calls_of, bytes_of = zip(*[rank for rank in everyone if rank is not None], strict=True)
        by_step = list(zip(*times, strict=True))
        return Timing(
            [max(of_ranks) for of_ranks in by_step],
            [min(of_ranks) for of_ranks in by_step],
            max(totals),
            max(calls_of),
            max(bytes_of),
        )

    def _timed(self, step: single_steps.Step, batches: Sequence[torch.Tensor], warm_up: int) -> _OfRank:
        seconds, sent, begun = [], (0, 0), 0.0
        for number, batch in enumerate(batches):
            start = time.perf_counter()
            if number == warm_up:
                sent, begun = single_steps.traffic(self._comm), start
            step(batch)
            single_steps.finish(self._placement.device)
            seconds.append(time.perf_counter() - start)
        total, counting = time.perf_counter() - begun, len(batches) - warm_up
        calls, size = (
            (now - then) / counting for now, then in zip(single_steps.traffic(self._comm), sent, strict=True)
        )
        return seconds, total, calls, size

    def _step(self, phase: Phase) -> single_steps.Step:
        what: Phase = "local" if phase == "alone" else phase
        if what not in self._steps:
            makers = {"local": self._local, "gather": self._gather, "dnn": self._dnn, "coherent": self._coherent}
            self._steps[what] = makers[what]()
        return self._steps[what]

    def _local(self) -> single_steps.Step:
        if self._team is None:
            return _idle
        return single_steps.local(self._team, self._problem, self._samples, self._stack)

    def _gather(self) -> single_steps.Step:
        widths = self._problem.feature_widths(self.config.aggregation.features)
        rows = self._problem.samples["train"]
        features = [{"train": torch.randn(rows, widths[s])} for s in self._placement.subdomains]

        def step(_: torch.Tensor) -> None:
            gather_features(self._comm, self._layout, features, {"train": rows}, widths)

        return step

    def _dnn(self) -> single_steps.Step:
        return (
            single_steps.dnn_on_root(self._team, self._problem)
            if self._comm.is_root and self._team is not None
            else _idle
        )

    def _coherent(self) -> single_steps.Step:
        if self._team is None:
            return _idle
        if self.config.coherent.parallelism == "model":
            samples = SideBySide(list(self._samples.values()))
            return single_steps.model_parallel(self._team, self._problem, samples, self._stack)
        others = [s for s in range(self._layout.num_subdomains) if s not in self._samples]
        read = self._problem.read(self._reader, others, self._placement.device, self._storage)
        everything = {**self._samples, **{s: splits["train"] for s, splits in read.items()}}
        samples = SideBySide([everything[s] for s in sorted(everything)])
        return single_steps.data_parallel(self._team, self._problem, samples, self._stack)


_SECTIONS = {"local": "local", "alone": "local", "gather": "aggregation", "dnn": "aggregation", "coherent": "coherent"}
"""By phase the section of the configuration that has its batch size."""


def _idle(_: torch.Tensor) -> None:
    """A rank that has nothing to do in a phase."""

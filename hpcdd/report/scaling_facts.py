"""Speed-up and efficiency from the measurements of ``hpcdd scale``; pure.

With T(n) the seconds of a step on n ranks, and n0 the smallest measured number of ranks: strong scaling has efficiency
n0 T(n0) / (n T(n)), weak scaling, where the problem grows with n, T(n0) / T(n); the speed-up over n0 ranks is n / n0
times the efficiency. Where one job has measured both, ratios are taken within its repeats, in which both are
interleaved; otherwise from the median of T(n0) and each T(n). Reported are the median and the quartiles of the ratios.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from ..artifacts.scaling_log import ScalingLine
from ..config.scaling_study import Phase
from ..core.interleaved_timing import quartiles

Repeat = tuple[int, str, int]
"""Number of the file, job, number of the repeat."""
RUN = "run"
"""All training steps and the gather of a run of the configuration, without evaluations and the baseline."""
ORDER = (*get_args(Phase), RUN)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(*quartiles(values))


@dataclass(frozen=True)
class Scaling:
    """Results of one series of measurements.

    Attributes:
        name, kind: of the study.
        series: its identity.
        lines: its measurements.
        ranks: the numbers of ranks that were measured, ascending.
        phases: the measured phases, in the order of a run.
        repeats: number of repeats, by phase and ranks.
        unpaired: numbers of ranks that no job has measured together with n0.
        seconds: seconds of a step, by phase and ranks.
        efficiency: parallel efficiency, by phase and ranks.
        run_seconds: median seconds in a whole run, by ranks and phase.
        bytes: bytes of one rank per step, by phase and ranks.
    """

    name: str
    kind: str
    series: str
    lines: list[ScalingLine]
    ranks: list[int]
    phases: list[str]
    repeats: dict[str, dict[int, int]]
    unpaired: list[int]
    seconds: dict[str, dict[int, Spread]]
    efficiency: dict[str, dict[int, Spread]]
    run_seconds: dict[int, dict[str, float]]
    bytes: dict[str, dict[int, float]]

    @property
    def base(self) -> int:
        """n0."""
        return self.ranks[0]

    def speed_up(self, phase: str) -> dict[int, Spread]:
        """Speed-up over the smallest number of ranks, by ranks."""
        return {
            n: Spread(*[n / self.base * value for value in (e.low, e.median, e.high)])
            for n, e in self.efficiency[phase].items()
        }

    def machines(self) -> list[str]:
        """A description of each machine on which the lines were measured."""
        return list(dict.fromkeys(_machine(line) for line in self.lines))


def analyse(sources: Sequence[Sequence[ScalingLine]]) -> list[Scaling]:
    """Analyses each series, in the order of their first measurements.

    Args:
        sources: the lines of each file; equal repeats of several files all count.
    """
    by_series: dict[str, list[tuple[Repeat, ScalingLine]]] = defaultdict(list)
    for number, lines in enumerate(sources):
        for line in lines:
            by_series[line.series].append(((number, line.job, line.repeat), line))
    return [_analyse(of_series) for of_series in by_series.values()]


def _analyse(measurements: Sequence[tuple[Repeat, ScalingLine]]) -> Scaling:
    lines = [line for _, line in measurements]
    first = lines[0]
    steps: dict[str, dict[int, dict[Repeat, float]]] = defaultdict(lambda: defaultdict(dict))
    for repeat, line in measurements:
        steps[line.phase][line.ranks][repeat] = line.seconds / line.counting_steps
    phases = [phase for phase in ORDER if phase in steps]
    ranks = sorted({line.ranks for line in lines})
    in_run = {str(phase): number for phase, number in first.in_run.items()}
    of_run = [phase for phase in phases if phase in in_run]
    complete = [n for n in ranks if of_run and all(n in steps[phase] for phase in of_run)]
    medians = {
        n: {phase: statistics.median(steps[phase][n].values()) * in_run[phase] for phase in of_run} for n in complete
    }
    for n in complete:
        common = set.intersection(*[set(steps[phase][n]) for phase in of_run])
        runs = {repeat: sum(steps[phase][n][repeat] * in_run[phase] for phase in of_run) for repeat in common}
        steps[RUN][n] = dict(sorted(runs.items())) or {(-1, "", 0): sum(medians[n].values())}
    efficiency: dict[str, dict[int, Spread]] = defaultdict(dict)
    unpaired = set()
    for phase, by_ranks in steps.items():
        for n in sorted(by_ranks) if ranks[0] in by_ranks else []:
            ratios, paired = _ratios(by_ranks[ranks[0]], by_ranks[n])
            scale = ranks[0] / n if first.kind == "strong" else 1.0
            efficiency[phase][n] = Spread.of([ratio * scale for ratio in ratios])
            if not paired:
                unpaired.add(n)
    return Scaling(
        name=first.name,
        kind=first.kind,
        series=first.series,
        lines=lines,
        ranks=ranks,
        phases=phases,
        repeats={
            phase: {n: len(by_repeat) for n, by_repeat in sorted(by_ranks.items())} for phase, by_ranks in steps.items()
        },
        unpaired=sorted(unpaired),
        seconds={
            phase: {n: Spread.of(list(by_repeat.values())) for n, by_repeat in sorted(by_ranks.items())}
            for phase, by_ranks in steps.items()
        },
        efficiency=efficiency,
        run_seconds=medians,
        bytes={
            phase: {
                n: max(line.bytes_per_step for line in lines if (line.phase, line.ranks) == (phase, n))
                for n in sorted(steps[phase])
            }
            for phase in phases
        },
    )


def _ratios(base: Mapping[Repeat, float], seconds: Mapping[Repeat, float]) -> tuple[list[float], bool]:
    """T(n0) / T(n), and whether both were measured interleaved."""
    if common := sorted(set(base) & set(seconds)):
        return [base[repeat] / seconds[repeat] for repeat in common], True
    return [statistics.median(base.values()) / duration for duration in seconds.values()], False


def _machine(line: ScalingLine) -> str:
    machine, layout = line.machine, line.layout
    return (
        f"{', '.join(layout.processors)}, {machine.cores} cores and {machine.memory_bytes / 2**30:.0f} GiB per host; "
        f"{', '.join(layout.devices)}; {machine.platform}; {layout.mpi_library.splitlines()[0].split(',')[0].strip()}; "
        f"torch {layout.torch}, hpcdd {machine.packages.get('hpcdd')}; "
        f"{line.threads} thread{'s' * (line.threads > 1)} per rank"
    )

"""Speed-up and efficiency from the measurements of ``hpcdd scale``; pure.

With T(n) the seconds of a step on n ranks, and n0 the smallest measured number of ranks: strong scaling has efficiency
n0 T(n0) / (n T(n)), weak scaling, where the problem grows with n, T(n0) / T(n); the speed-up over n0 ranks is n / n0
times the efficiency. Ratios are of equal repeats, which took turns if one job measured both; median and quartiles.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..turns import quartiles

Line = dict[str, Any]
RUN = "run"
"""A whole run: the steps of all measured phases, as often as the configuration wants them."""
ORDER = ("local", "alone", "gather", "dnn", "coherent", RUN)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(*quartiles(values))


@dataclass(frozen=True)
class Scaling:
    """What one series says.

    Attributes:
        name, kind: of the study.
        series: its identity.
        lines: its measurements.
        ranks: the numbers of ranks that were measured, ascending.
        phases: the measured phases, in the order of a run.
        seconds: by phase and ranks, of a step.
        efficiency: by phase and ranks.
        run_seconds: by ranks and phase, in a whole run (medians).
        bytes: by phase and ranks, of one rank's step.
    """

    name: str
    kind: str
    series: str
    lines: list[Line]
    ranks: list[int]
    phases: list[str]
    seconds: dict[str, dict[int, Spread]]
    efficiency: dict[str, dict[int, Spread]]
    run_seconds: dict[int, dict[str, float]]
    bytes: dict[str, dict[int, float]]

    @property
    def base(self) -> int:
        """n0."""
        return self.ranks[0]

    def speed_up(self, phase: str) -> dict[int, Spread]:
        """By ranks, over the smallest number of them."""
        return {
            n: Spread(*[n / self.base * value for value in (e.low, e.median, e.high)])
            for n, e in self.efficiency[phase].items()
        }

    def machines(self) -> list[str]:
        """In words, each machine on which the lines were measured."""
        return list(dict.fromkeys(_machine(line) for line in self.lines))


def analyse(lines: Iterable[Line]) -> list[Scaling]:
    """One result for each series, in the order in which they begin."""
    by_series: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_series[line["series"]].append(line)
    return [_analyse(of_series) for of_series in by_series.values()]


def _analyse(lines: list[Line]) -> Scaling:
    first = lines[0]
    steps: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        steps[line["phase"]][line["ranks"]][line["repeat"]] = line["seconds"] / line["counting_steps"]
    phases = [phase for phase in ORDER if phase in steps]
    ranks = sorted({line["ranks"] for line in lines})
    in_run: dict[str, float] = first["in_run"]
    of_run = [phase for phase in phases if phase in in_run]
    whole = [n for n in ranks if all(n in steps[phase] for phase in of_run)]
    for n in whole:
        repeats = set.intersection(*[set(steps[phase][n]) for phase in of_run])
        for repeat in sorted(repeats):
            steps[RUN][n][repeat] = sum(steps[phase][n][repeat] * in_run[phase] for phase in of_run)
    factor = {n: ranks[0] / n if first["kind"] == "strong" else 1.0 for n in ranks}
    efficiency: dict[str, dict[int, Spread]] = {}
    for phase, by_ranks in steps.items():
        reference = by_ranks.get(ranks[0], {})
        efficiency[phase] = {
            n: Spread.of(ratios)
            for n in sorted(by_ranks)
            if (ratios := [reference[r] / own * factor[n] for r, own in sorted(by_ranks[n].items()) if r in reference])
        }
    return Scaling(
        name=first["name"],
        kind=first["kind"],
        series=first["series"],
        lines=lines,
        ranks=ranks,
        phases=phases,
        seconds={
            phase: {n: Spread.of(list(repeats.values())) for n, repeats in sorted(by_ranks.items())}
            for phase, by_ranks in steps.items()
        },
        efficiency=efficiency,
        run_seconds={
            n: {phase: statistics.median(steps[phase][n].values()) * in_run[phase] for phase in of_run} for n in whole
        },
        bytes={
            phase: {
                n: max(line["bytes_per_step"] for line in lines if (line["phase"], line["ranks"]) == (phase, n))
                for n in sorted(steps[phase])
            }
            for phase in phases
        },
    )


def _machine(line: Line) -> str:
    machine, places = line["machine"], line["places"]
    devices = ", ".join(sorted({place[1].partition(":")[0] for place in places}))
    packages = machine["packages"]
    return (
        f"{machine['platform']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB per host; "
        f"{devices}; {machine['mpi_library'].splitlines()[0].split(',')[0].strip()}; torch {packages.get('torch')}, "
        f"hpcdd {packages.get('hpcdd')}; {line['threads']} thread{'s' * (line['threads'] > 1)} per rank"
    )

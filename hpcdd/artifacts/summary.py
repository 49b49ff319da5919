"""The plan of a run and its results, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ..core.names import CLASSIFIERS, PHASES, SPLITS, STARTS, STRATEGIES, TRAININGS
from ..core.text_table import print_plain
from ..data.problem import Problem
from ..data.sample_storage import Storages
from ..decomposition.boxes import by
from ..decomposition.rank_layout import RankLayout
from ..models.aggregators import RULES
from .results import Results


def print_problem(problem: Problem, out: TextIO) -> None:
    """Prints the decomposition, the width of the CNNs and the numbers of parameters."""
    decomposition, widths = problem.decomposition, problem.widths
    boxes = decomposition.boxes
    shapes = sorted({by(box.shape) for box in boxes})
    grid = "explicit boxes" if decomposition.parts is None else by(decomposition.parts)
    print(f"decomposition: {grid}, {len(boxes)} subimages of {' and '.join(shapes)} pixels", file=out)
    if decomposition.coarse is not None:
        coarse = decomposition.subdomains[-1]
        print(
            f"coarse subdomain {len(boxes)}: the image averaged in blocks of {by(coarse.block)} "
            f"to {by(coarse.shape)} pixels",
            file=out,
        )
    if (coverage := decomposition.coverage()) < 1:
        print(f"note: the boxes leave {1 - coverage:.1%} of the image out", file=out)
    print(
        f"parameters: global CNN {widths.global_parameters:,} (width {widths.global_width}); "
        f"local CNNs {_span(widths.local_parameters)} each, {sum(widths.local_parameters):,} in all "
        f"(width {widths.local_width})",
        file=out,
    )


def print_plan(layout: RankLayout, problem: Problem, out: TextIO, storages: Storages | None = None) -> None:
    """Prints the plan of a run: :func:`print_problem`, memory on root and for samples, placement of the ranks."""
    print_problem(problem, out)
    if problem.root_bytes:
        print(
            f"memory on root for the outputs of the local CNNs: {problem.root_bytes / 2**20:,.1f} MiB of "
            f"{problem.root_available / 2**20:,.0f} MiB free",
            file=out,
        )
    for line in storages.lines() if storages is not None else []:
        print(line, file=out)
    for placement in layout.placements:
        whose = f"subdomain {', '.join(map(str, placement.subdomains))}" if placement.subdomains else "no subdomain"
        if layout.replicas > 1 and placement.subdomains:
            whose += f", replica {placement.replica} of {layout.replicas}"
        threads = f"{placement.threads} thread{'s' if placement.threads > 1 else ''}"
        print(f"rank {placement.rank} on {placement.host}, {placement.device}, {threads}: {whose}", file=out)
    for warning in layout.warnings():
        print(f"warning: {warning}", file=out)
    out.flush()


def print_results(results: Results, directory: Path, out: TextIO) -> None:
    """Prints the accuracies, parameters and seconds of a run."""
    from rich.table import Table
    from rich.text import Text

    accuracy = {split: results.accuracy[split] for split in SPLITS if split in results.accuracy}
    table = Table("accuracy", title=Text(f"{results.dataset.name}: {results.name}"), title_justify="left")
    for split in accuracy:
        table.add_column(split, justify="right")

    def add(label: str, rates: Iterable[float | None]) -> None:
        table.add_row(label, *["" if rate is None else f"{rate:.4f}" for rate in rates])

    fine = len(results.decomposition.boxes)
    for s in range(len(results.parameters.local)):
        add(f"local CNN {s}" if s < fine else f"coarse CNN {s}", [of_split.local[s] for of_split in accuracy.values()])
    table.add_section()
    for name in CLASSIFIERS:
        if results.strategy(name) is not None:
            add(STRATEGIES[name].title, [of_split.of(name) for of_split in accuracy.values()])
    for start in STARTS:
        parts = [of_split.parts_of(start) for of_split in accuracy.values()]
        if parts[-1] is not None:
            table.add_section()
            for rule in RULES:
                label = f"{STRATEGIES[rule].title}, CNNs after coherent_{start}"
                add(label, [None if part is None else getattr(part, rule) for part in parts])
    print_plain(table, 100, out)

    parameters, seconds, core_seconds = results.parameters, results.seconds, results.core_seconds
    coherent = "" if parameters.coherent is None else f"; coherent model {parameters.coherent:,}"
    phases = [phase for phase in PHASES if phase in seconds and (phase == "gather" or phase in TRAININGS)]
    local_seconds = seconds["local"]
    print(
        f"parameters: global CNN {parameters.of_global:,}; local CNNs {_span(parameters.local)} each, "
        f"{sum(parameters.local):,} in all; DNN {parameters.dnn:,}{coherent}",
        f"seconds: start {results.seconds_of('start'):.1f}, read {results.seconds_of('read'):.1f}, "
        f"local {_span(local_seconds if isinstance(local_seconds, list) else [local_seconds], '.1f')} per subdomain, "
        + "".join(f"{phase} {seconds[phase]:.1f}, " for phase in phases if phase != "local")
        + f"total {seconds['total']:.1f}",
        "start-up: " + ", ".join(f"{cause.replace('_', ' ')} {value:.1f}" for cause, value in results.startup.items()),
        "CPU seconds, all ranks: "
        + ", ".join(f"{phase} {core_seconds[phase]:.1f}" for phase in (*phases, "total") if phase in core_seconds),
        "messages of a rank: " + "; ".join(_messages(phase, results.communication[phase]) for phase in phases),
        f"results: {directory / 'results.json'}",
        sep="\n",
        file=out,
        flush=True,
    )


def _messages(phase: str, counted: Mapping[str, float]) -> str:
    if "calls_per_step" in counted:
        return f"{phase} {counted['calls_per_step']:g} calls, {counted['bytes_per_step']:,.0f} bytes per step"
    return f"{phase} {counted['calls']} calls, {counted['bytes']:,} bytes"


def _span(values: Sequence[float], form: str = ",") -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"

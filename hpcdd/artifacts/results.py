"""What a run leaves for people and programs: results.json, metrics.jsonl, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..config.schema import Config
from ..data.problem import Problem
from ..data.sample_storage import Storages
from ..decomposition.boxes import by
from ..decomposition.rank_layout import RankLayout
from ..models.aggregators import RULES
from ..mpi.traffic import Traffic
from .names import CLASSIFIERS, STRATEGIES

FORMAT = 1


def traffic_of(ranks: Iterable[Mapping[str, Traffic]], steps: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """By phase the calls and bytes of the rank that has most, so that zero means that no rank has any.

    Args:
        ranks: of every rank its traffic by phase.
        steps: training steps of those phases whose messages are counted by step as well.
    """
    phases: dict[str, dict[str, float]] = {}
    for traffic in ranks:
        for phase, counted in traffic.items():
            most = phases.setdefault(phase, {"calls": 0, "bytes": 0})
            most["calls"] = max(most["calls"], counted.calls)
            most["bytes"] = max(most["bytes"], counted.bytes)
    for phase, number in steps.items():
        phases[phase] |= {f"{what}_per_step": phases[phase][what] / number for what in ("calls", "bytes")}
    return phases


def summed(ranks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By phase the sum over the ranks, and that over all phases as ``total``."""
    phases: dict[str, float] = {}
    for of_rank in ranks:
        for phase, value in of_rank.items():
            phases[phase] = phases.get(phase, 0.0) + value
    return {**phases, "total": sum(phases.values())}


def assemble(
    config: Config,
    problem: Problem,
    layout: RankLayout,
    *,
    parameters: Mapping[str, Any],
    accuracy: Mapping[str, Any],
    seconds: Mapping[str, Any],
    core_seconds: Mapping[str, float],
    communication: Mapping[str, Any],
    bytes_read: Sequence[int],
    memory: Sequence[tuple[int, int | None]],
    startup: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """The content of results.json as plain data, format 1.

    Args:
        config, problem, layout: of the run.
        parameters: trainable ones, by network; ``local`` by subdomain.
        accuracy: by split and strategy.
        seconds: by phase; ``local`` by subdomain.
        core_seconds: processor time by phase, of all ranks together.
        communication: from :func:`traffic_of`.
        bytes_read: bytes of pixels by rank.
        memory: by rank the most bytes in memory, of the host and of the GPU (None without one).
        startup: by rank, seconds from the launch to the end of the first training step by cause.
    """
    info, decomposition, widths = problem.info, problem.decomposition, problem.widths
    return {
        "format": FORMAT,
        "name": config.name,
        "seed": config.seed,
        "dataset": {
            "name": info.name,
            **problem.samples,
            "classes": info.num_classes,
            "class_names": list(info.class_names),
            "image_shape": list(info.image_shape),
        },
        "decomposition": {
            "grid": None if decomposition.parts is None else list(decomposition.parts),
            "overlap": list(decomposition.overlap),
            "boxes": [[list(box.start), list(box.stop)] for box in decomposition.boxes],
            "coarse": None if decomposition.coarse is None else list(decomposition.coarse),
        },
        "width": {"global": widths.global_width, "local": widths.local_width},
        "parameters": parameters,
        "accuracy": accuracy,
        "seconds": seconds,
        "core_seconds": core_seconds,
        "communication": communication,
        "bytes_read": list(bytes_read),
        "startup": {
            cause: max(of_rank.get(cause, 0.0) for of_rank in startup)
            for cause in dict.fromkeys(cause for of_rank in startup for cause in of_rank)
        },
        "memory": [host for host, _ in memory],
        "gpu_memory": [gpu for _, gpu in memory],
        "ranks": len(layout.places),
        "replicas": layout.replicas,
        "hosts": layout.hosts,
        "devices": [place.device for place in layout.places],
        "threads_per_rank": layout.places[0].threads,
    }


def print_problem(problem: Problem, out: TextIO) -> None:
    """Says what is to be solved: decomposition, width of the CNNs, parameters."""
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
    """Says once who does what: :func:`print_problem`, memory on root and for samples, map of the ranks."""
    print_problem(problem, out)
    if problem.root_bytes:
        print(
            f"memory on root for the local decisions: {problem.root_bytes / 2**20:,.1f} MiB of "
            f"{problem.root_available / 2**20:,.0f} MiB that are free",
            file=out,
        )
    for line in storages.lines() if storages is not None else []:
        print(line, file=out)
    for place in layout.places:
        whose = f"subdomain {', '.join(map(str, place.subdomains))}" if place.subdomains else "no subdomain"
        if layout.replicas > 1 and place.subdomains:
            whose += f", replica {place.replica} of {layout.replicas}"
        threads = f"{place.threads} thread{'s' if place.threads > 1 else ''}"
        print(f"rank {place.rank} on {place.host}, {place.device}, {threads}: {whose}", file=out)
    for warning in layout.warnings():
        print(f"warning: {warning}", file=out)
    out.flush()


def print_results(results: Mapping[str, Any], directory: Path, out: TextIO) -> None:
    """The tables of accuracies, parameters and seconds."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Plain text: under Open MPI a rank writes to a pseudo-terminal even where the job writes to a file.
    console = Console(file=out, width=100, highlight=False, force_terminal=False)
    accuracy = results["accuracy"]
    splits = [split for split in ("train", "validation", "test") if split in accuracy]
    table = Table("accuracy", title=Text(f"{results['dataset']['name']}: {results['name']}"), title_justify="left")
    for split in splits:
        table.add_column(split, justify="right")
    fine = len(results["decomposition"]["boxes"])
    for s in range(len(results["parameters"]["local"])):
        name = f"local CNN {s}" if s < fine else f"coarse CNN {s}"
        table.add_row(name, *[f"{accuracy[split]['local'][s]:.4f}" for split in splits])
    table.add_section()
    for key in CLASSIFIERS:
        if key in accuracy["test"]:
            table.add_row(STRATEGIES[key].title, *[f"{accuracy[split][key]:.4f}" for split in splits])
    for start in ("transfer", "scratch"):
        if (parts := f"coherent_{start}_parts") in accuracy["test"]:
            table.add_section()
            for key in CLASSIFIERS[: len(RULES)]:
                words = f"{STRATEGIES[key].title}, CNNs after coherent_{start}"
                table.add_row(words, *[f"{accuracy[split][parts][key]:.4f}" for split in splits])
    console.print(table)

    parameters, seconds, communication = results["parameters"], results["seconds"], results["communication"]
    core_seconds = results["core_seconds"]
    coherent = f"; coherent model {parameters['coherent']:,}" if "coherent" in parameters else ""
    later = [phase for phase in seconds if phase.startswith("coherent") or phase == "global"]
    print(
        f"parameters: global CNN {parameters['global']:,}; local CNNs {_span(parameters['local'])} each, "
        f"{sum(parameters['local']):,} in all; DNN {parameters['dnn']:,}{coherent}",
        f"seconds: start {seconds['start']:.1f}, read {seconds['read']:.1f}, "
        f"local {_span(seconds['local'], '.1f')} per subdomain, "
        + "".join(f"{phase} {seconds[phase]:.1f}, " for phase in ("gather", "dnn", *later) if phase in seconds)
        + f"total {seconds['total']:.1f}",
        "start-up: "
        + ", ".join(f"{cause.replace('_', ' ')} {value:.1f}" for cause, value in results["startup"].items()),
        "seconds of processor time, all ranks: "
        + ", ".join(
            f"{phase} {core_seconds[phase]:.1f}"
            for phase in ("local", "gather", "dnn", *later, "total")
            if phase in core_seconds
        ),
        "messages of a rank: "
        + "; ".join(_messages(phase, communication[phase]) for phase in ("local", "gather", "dnn") if phase in seconds)
        + "".join(f"; {_messages(phase, communication[phase])}" for phase in later),
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

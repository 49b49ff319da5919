"""The tables of ``hpcdd plan``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.table import Table
from rich.text import Text

from ..config.schema import Config
from ..core.text_table import print_plain
from ..data.problem import Problem
from ..data.sample_loading import Where
from ..decomposition.boxes import by
from ..decomposition.rank_layout import RankLayout
from . import messages
from .cost import PlannedCosts, total
from .memory import MOMENTS, MPI_BYTES, Memory
from .messages import Message, SimulatedLayout, bytes_of, calls_of

_MOST_ROWS, _MOST_NAMED = 12, 4
_LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10_000, 20_000, 50_000, 100_000)


def print_boxes(problem: Problem, layout: RankLayout, out: TextIO) -> None:
    """Who owns which pixels; of many subdomains the first and the last."""
    table = _table("boxes and their owners", "subdomain", "pixels", "shape", "ranks", "parameters")
    every = problem.decomposition.subdomains
    for s in _some(len(every)):
        if s is None:
            table.add_row("...")
            continue
        box, ranks = every[s].box, [placement.rank for placement in layout.placements if s in placement.subdomains]
        pixels = " x ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))
        averaged = f", averaged in blocks of {by(every[s].block)}" if every[s].is_coarse else ""
        parameters = f"{problem.widths.local_parameters[s]:,}"
        table.add_row(str(s), pixels + averaged, by(every[s].shape), _span(ranks), parameters)
    _print(table, out)


def print_memory(
    layout: RankLayout, memories: Sequence[tuple[Memory, Where]], out: TextIO, *, measured: bool, budget: str
) -> None:
    """Memory of each rank at its fullest moment; identical ranks are in one row.

    Args:
        layout: who owns what.
        memories: by rank, and where it keeps its samples.
        out: where to print.
        measured: whether the libraries' memory is that of a job of the machine file.
        budget: description of the budget with which ``auto`` chooses.
    """
    kinds = ("libraries", "samples", "weights", "gradients", "optimizer", "activations", "outputs", "total")
    table = _table("peak memory of a rank, MiB", "ranks", "CNNs", *kinds, "when")
    on_gpu = any(placement.device != "cpu" for placement in layout.placements)
    if on_gpu:
        table.add_column("on the GPU", justify="right")
    groups = itertools.groupby(layout.placements, lambda p: (len(p.subdomains), *memories[p.rank]))
    rows = [([placement.rank for placement in group], *of_each) for of_each, group in groups]
    for index in _some(len(rows)):
        if index is None:
            table.add_row("...")
            continue
        ranks, cnns, memory, where = rows[index]
        sizes = [memory.runtime, memory.samples, memory.weights, memory.gradients, memory.optimizer]
        sizes += [memory.activations, memory.outputs, memory.total]
        gpu = [_mib(memory.on_gpu(where))] if on_gpu else []
        table.add_row(_span(ranks), str(cnns), *map(_mib, sizes), MOMENTS[memory.moment], *gpu)
    _print(table, out)
    print(
        "libraries: "
        + (
            "measured in a job on this machine"
            if measured
            else f"measured in this process, and {MPI_BYTES >> 20} MiB for MPI"
        ),
        file=out,
    )
    places = {
        "device": "in memory, on the device",
        "memory": "in the host's memory",
        "stream": "streamed from the file",
    }
    chosen = dict.fromkeys(where for _, where in memories)
    print(f"samples: {' or '.join(places[where] for where in chosen)} ({budget})", file=out)


def print_messages(config: Config, problem: Problem, ranks: int, out: TextIO) -> None:
    """Calls and bytes, as results.json counts them: of the rank that has most."""
    table = _table("messages of a rank", "phase", "calls", "bytes", "", "of these", "collective", "ranks", "bytes each")
    phases: list[tuple[str, str, list[Message]]] = [
        ("local", "per step", messages.local_step(config, problem, ranks)),
        ("gather", "in all", messages.gather(config, problem, ranks)),
        ("dnn", "per step", messages.dnn_step(config, problem, ranks)),
    ]
    if config.coherent.starts:
        phases.append(("coherent", "per step", messages.coherent_step(config, problem, ranks)))
    if config.baseline.enabled:
        phases.append(("global", "per step", messages.global_step(config, problem, ranks)))
    for name, often, sent in phases:
        head = [name, f"{calls_of(sent):,}", f"{bytes_of(sent):,}", often]
        for what in dict.fromkeys((message.what, message.collective, message.ranks) for message in sent):
            matching = [m for m in sent if (m.what, m.collective, m.ranks) == what]
            sizes = [m.counted for m in matching]
            each = f"{min(sizes):,}" if len(set(sizes)) == 1 else f"{min(sizes):,} to {max(sizes):,}"
            table.add_row(*head, f"{calls_of(matching):,} {what[0]}", what[1], f"{what[2]:,}", each)
            head = [""] * 4
        if not sent:
            table.add_row(*head)
    _print(table, out)


def print_times(costs: PlannedCosts, ranks: int, out: TextIO) -> None:
    """Seconds by phase on ``ranks`` ranks, and the efficiency on up to 100,000.

    Raises:
        UserError: the machine file lacks a time.
    """
    phases = costs.phases(ranks)
    table = _table(
        f"expected time on {ranks:,} rank{'s' if ranks > 1 else ''}",
        "phase", "steps", "ms per step", "messages, ms per step", "evaluations, s", "seconds",
    )  # fmt: skip
    for phase in phases:
        table.add_row(
            phase.name,
            f"{phase.steps:,}" if phase.steps else "",
            f"{(phase.compute + phase.sending) * 1e3:,.2f}",
            f"{phase.sending * 1e3:,.3f}",
            f"{phase.evaluating:,.2f}",
            f"{phase.seconds:,.2f}",
        )
    table.add_section()
    table.add_row("total", "", "", "", "", f"{total(phases):,.2f}")
    _print(table, out)
    print(
        "excluding start-up, reading, what torch loads at the first step, checkpoints and final evaluations", file=out
    )
    _print_efficiency(costs, ranks, out)
    print("times of computation:", file=out)
    for basis in dict.fromkeys(costs.clock.bases.values()):
        networks = [network for network in costs.clock.bases if costs.clock.bases[network] == basis]
        more = f"; and {len(networks) - _MOST_NAMED} more" if len(networks) > _MOST_NAMED else ""
        print(f"  {basis}: {'; '.join(networks[:_MOST_NAMED])}{more}", file=out)
    for note in costs.clock.notes:
        print(f"note: {note}", file=out)


def _print_efficiency(costs: PlannedCosts, ranks: int, out: TextIO) -> None:
    num_subdomains = costs.subdomains
    per_rank, grows = -(-num_subdomains // ranks), costs.grows_with_ranks
    table = _table(
        "expected efficiency, all phases together",
        "ranks", "hosts", "CNNs of a rank", "replicas", "strong: seconds", "efficiency",
        *((f"weak: seconds, {per_rank} CNN{'s' if per_rank > 1 else ''} each", "efficiency") if grows else ()),
    )  # fmt: skip
    on_one_rank = total(costs.phases(1))
    weak_on_one_rank = total(costs.weak(1, per_rank)) if grows else 0.0
    for n in sorted({*_LADDER, ranks, *([num_subdomains] if num_subdomains <= _LADDER[-1] else [])}):
        layout, hosts = SimulatedLayout.of(num_subdomains, n), -(-n // costs.clock.ranks_per_host)
        if costs.can_shard(layout):
            seconds = total(costs.phases(n))
            strong = [f"{seconds:,.2f}", f"{on_one_rank / (n * seconds):.2f}"]
        else:
            strong = ["too many ranks for a batch", ""]
        seconds = total(costs.weak(n, per_rank)) if grows else 0.0
        weak = [f"{seconds:,.2f}", f"{weak_on_one_rank / seconds:.2f}"] if grows else []
        most = -(-num_subdomains // layout.across)
        table.add_row(f"{n:,}", f"{hosts:,}", f"{most:,}", f"{layout.replicas:,}", *strong, *weak)
    _print(table, out)
    if not grows:
        print(
            "weak scaling is not modelled for a data-parallel coherent phase or a global CNN, whose size does not grow "
            "by a rank's subdomains",
            file=out,
        )


def _some(rows: int) -> Iterable[int | None]:
    """Which of many rows are shown; None for those that are left out."""
    if rows <= _MOST_ROWS:
        return range(rows)
    return [*range(_MOST_ROWS - 2), None, rows - 1]


def _span(numbers: Sequence[int]) -> str:
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    contiguous = numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{numbers[0]} to {numbers[-1]}" if contiguous else ", ".join(map(str, numbers))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(first, title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("", "of these", "collective", "when", "pixels") else "right"
        )
    return table


def _print(table: Table, out: TextIO) -> None:
    print(file=out)
    print_plain(table, 132, out)

"""The page of scaling studies: speed-up and efficiency, time by phase, bytes per rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ..artifacts import scaling_log
from ..core import yaml_text
from ..core.errors import UserError
from ..core.text_table import print_table
from .drawing import Figures
from .page import Section
from .scaling_facts import RUN, Scaling, Spread, analyse
from .scaling_figures import DRAWN, PHASES


def sections(sources: Sequence[Path], output: Path) -> list[Section]:
    """Draws the figures of each series of measurements.

    Args:
        sources: files of ``hpcdd scale``; a series in several of them is merged.
        output: where the page will stand; figures go into ``figures/`` there.

    Raises:
        UserError: a file is not one of ``hpcdd scale``, or there are no measurements.
        OSError: a figure can't be written.
    """
    scalings = analyse([scaling_log.read(source) for source in sources])
    if not scalings:
        raise UserError(f"{', '.join(map(str, sources))}: it contains no measurements yet")
    return [_section(scaling, output) for scaling in scalings]


def show(scaling: Scaling, out: TextIO) -> None:
    """Prints the table and the notes of a series."""
    print_table(_title(scaling), _HEAD, rows(scaling), out)
    for note in notes(scaling):
        print(f"note: {note}", file=out)


_HEAD = ["phase", "ranks", "repeats", "seconds", "efficiency", "speed-up", "bytes"]


def _title(scaling: Scaling) -> str:
    return f"{scaling.name}: {scaling.kind} scaling"


def _section(scaling: Scaling, output: Path) -> Section:
    figures, captions, stem = Figures(output), {}, f"{scaling.name}-{scaling.kind}-{scaling.series}"
    for name, (caption, function) in DRAWN.items():
        with figures.draw(f"{stem}-{name}", f"{caption}, against ranks") as axes:
            function(axes, scaling)
        captions[f"{stem}-{name}"] = f"{caption}."
    return Section(
        _title(scaling),
        "scaling.html",
        lambda out: show(scaling, out),
        cards=_cards(scaling),
        notes=notes(scaling),
        base=scaling.base,
        head=_HEAD,
        rows=rows(scaling),
        figures=list(figures),
        captions=captions,
        machines=scaling.machines(),
        settings=_settings(scaling),
    )


def _cards(scaling: Scaling) -> list[tuple[str, str]]:
    """The headline numbers: parallel efficiency on the largest number of ranks, and the bytes of a step."""
    most = scaling.ranks[-1]
    descriptions = {"local": "local step, without messages", "coherent": "coherent step", RUN: "steps of a whole run"}
    cards = [
        (f"{scaling.efficiency[phase][most].median:.2f}", f"parallel efficiency on {most:,} ranks: {description}")
        for phase, description in descriptions.items()
        if most in scaling.efficiency.get(phase, {})
    ]
    if most in (sent := scaling.bytes.get("coherent", {})):
        cards.append((f"{sent[most]:,.0f} B", f"of messages per coherent step and rank, on {most:,} ranks"))
    return cards


def rows(scaling: Scaling) -> list[list[str]]:
    """The rows of the table with the headings :data:`_HEAD`."""
    table_rows = []
    for phase in [*scaling.phases, *(p for p in scaling.seconds if p not in scaling.phases)]:
        for n, seconds in scaling.seconds[phase].items():
            efficiency, speed_up = scaling.efficiency[phase].get(n), scaling.speed_up(phase).get(n)
            size = scaling.bytes[phase][n] if phase in scaling.bytes else None
            table_rows.append(
                [
                    PHASES[phase].label,
                    f"{n:,}",
                    str(scaling.repeats[phase][n]),
                    f"{seconds.median:.4g}",
                    _spread_text(efficiency),
                    "-" if speed_up is None else f"{speed_up.median:.2f}",
                    "" if size is None else f"{size:,.0f}",
                ]
            )
    return table_rows


def notes(scaling: Scaling) -> list[str]:
    """What a reader should know before believing the figures."""
    sentences = []
    if len(scaling.machines()) > 1:
        sentences.append(
            "The points were measured on different machines or with different software; ratios "
            "between them mix both effects."
        )
    if several := [n for n in scaling.ranks if len({str(line.layout) for line in _of(scaling, n)}) > 1]:
        sentences.append(
            f"On {_listed(several)} ranks, several layouts or machines were measured; the figures mix them."
        )
    if scaling.unpaired:
        sentences.append(
            f"No job has measured {_listed(scaling.unpaired)} ranks together with {scaling.base}; ratios are relative "
            "to the median of measurements taken at another time."
        )
    if oversubscribed := [n for n in scaling.ranks if any(map(_oversubscribed, _of(scaling, n)))]:
        sentences.append(f"On {_listed(oversubscribed)} ranks, there were more threads than cores.")
    if idle := [
        n for n in scaling.ranks if any(not subdomains for line in _of(scaling, n) for *_, subdomains in line.places)
    ]:
        sentences.append(f"On {_listed(idle)} ranks, some were idle; efficiency counts them as well.")
    if scaling.base > 1:
        sentences.append(f"The smallest measured number of ranks is {scaling.base}; efficiency is relative to it.")
    return sentences


def _of(scaling: Scaling, ranks: int) -> list[scaling_log.ScalingLine]:
    return [line for line in scaling.lines if line.ranks == ranks]


def _oversubscribed(line: scaling_log.ScalingLine) -> bool:
    by_host: dict[str, int] = {}
    for host, device, threads, subdomains in line.places:
        if device == "cpu" and subdomains:
            by_host[host] = by_host.get(host, 0) + threads
    return any(threads > line.machine.cores_in_affinity_mask for threads in by_host.values())


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _spread_text(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def _settings(scaling: Scaling) -> str:
    first = scaling.lines[0]
    return yaml_text.dump({**first.study, "config": first.config})

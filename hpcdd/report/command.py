"""``hpcdd report``: figures and one HTML page of a study of runs, or from the files of ``hpcdd scale``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import yaml_text
from ..command_line import COMMON
from ..errors import UserError
from ..files import write_bytes, writing
from ..studies import record
from . import study
from .figures import WORDS, draw
from .scaling import Scaling, Spread, analyse


def run(arguments: Sequence[str], out: TextIO = sys.stdout) -> None:
    """Writes the report and says where it is.

    Raises:
        UserError: a file is no record of measurements.
        WriteError: the report can't be written.
    """
    try:
        own, rest = parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"report: {error}; see `hpcdd report --help`") from error
    if unknown := [word for word in rest if word.startswith("-")]:
        raise UserError(f"report: {unknown[0]} is unknown; see `hpcdd report --help`")
    if not rest:
        raise UserError("report: name a study directory, or a file of `hpcdd scale`; see `hpcdd report --help`")
    sources = [Path(word) for word in rest]
    if any(source.is_dir() for source in sources):
        if len(sources) > 1:
            raise UserError(f"report: {', '.join(rest)}: name one study directory, or files of `hpcdd scale`")
        study.report(sources[0], Path(own.output or sources[0]), out)
        return
    folder = Path(own.output or sources[0].with_name(f"{sources[0].stem}-report"))
    scalings = analyse([record.read(source) for source in sources])
    if not scalings:
        raise UserError(f"{', '.join(map(str, sources))}: there is no measurement in it yet")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write(scalings, sources, folder)
    for scaling in scalings:
        for row in rows(scaling):
            print("  ".join(f"{cell:>16}" for cell in row), file=out)
    print(f"report: {folder / 'report.html'}", file=out, flush=True)


def parser() -> argparse.ArgumentParser:
    """Of ``hpcdd report``."""
    made = argparse.ArgumentParser(
        prog="hpcdd report",
        usage="hpcdd report STUDYDIR|SCALING.jsonl ... [--output FOLDER]",
        description=__doc__ + "\nOf a study: its table (also as CSV and LaTeX), and what is expected beside what was\n"
        "measured. Of scaling: speed-up and efficiency with ideal lines, time by phase, bytes per rank.",
        epilog="examples:\n  hpcdd report studies/quick\n"
        "  hpcdd report scaling_strong.jsonl scaling_weak.jsonl --output report",
        **COMMON,
    )
    made.add_argument("--output", metavar="FOLDER", help="default: STUDYDIR, or SCALING-report beside the first file")
    return made


def write(scalings: Sequence[Scaling], sources: Sequence[Path], folder: Path) -> None:
    """Writes ``report.html`` and, for each series, a figure as PNG and SVG; the page needs no other file."""
    figures = []
    for scaling in scalings:
        stem = folder / f"{scaling.name}-{scaling.kind}-{scaling.series}"
        _, svg = draw(scaling, stem)
        figures.append(svg.read_text()[svg.read_text().index("<svg") :])
    # Texts come from files that others may have written: they are escaped.
    templates = Environment(loader=PackageLoader("hpcdd.report", "."), autoescape=True, undefined=StrictUndefined)
    page = templates.get_template("page.html").render(
        title=", ".join(dict.fromkeys(f"{scaling.name}: {scaling.kind} scaling" for scaling in scalings)),
        sources=[source.name for source in sources],
        scalings=scalings,
        notes=[notes(scaling) for scaling in scalings],
        tables=[rows(scaling) for scaling in scalings],
        figures=figures,
        settings=[_settings(scaling) for scaling in scalings],
    )
    write_bytes(folder / "report.html", page.encode())


def rows(scaling: Scaling) -> list[list[str]]:
    """Of the table: phase, ranks, repeats, seconds, efficiency, speed-up, bytes."""
    found = []
    for phase in [*scaling.phases, *(p for p in scaling.seconds if p not in scaling.phases)]:
        for n, seconds in scaling.seconds[phase].items():
            efficiency, speed_up = scaling.efficiency[phase].get(n), scaling.speed_up(phase).get(n)
            size = scaling.bytes[phase][n] if phase in scaling.bytes else None
            found.append(
                [
                    WORDS[phase],
                    f"{n:,}",
                    str(scaling.repeats[phase][n]),
                    f"{seconds.median:.4g}",
                    _words(efficiency),
                    "-" if speed_up is None else f"{speed_up.median:.2f}",
                    "" if size is None else f"{size:,.0f}",
                ]
            )
    return found


def notes(scaling: Scaling) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    if len(scaling.machines()) > 1:
        found.append("Not all points were measured on like machines with like software: ratios between them mix both.")
    if several := [n for n in scaling.ranks if len({str(line.layout) for line in _of(scaling, n)}) > 1]:
        found.append(f"On {_listed(several)} ranks several layouts or machines were measured, which the figures mix.")
    if scaling.apart:
        found.append(
            f"No job has measured {_listed(scaling.apart)} ranks together with {scaling.base}: ratios are to the "
            "median of what was measured at another time."
        )
    if crowded := [n for n in scaling.ranks if any(map(_crowded, _of(scaling, n)))]:
        found.append(f"On {_listed(crowded)} ranks there were more threads than cores.")
    if spare := [n for n in scaling.ranks if any(not place[3] for line in _of(scaling, n) for place in line.places)]:
        found.append(f"On {_listed(spare)} ranks some had nothing to do; efficiency counts them as well.")
    if scaling.base > 1:
        found.append(f"The smallest measured number of ranks is {scaling.base}: efficiency is relative to it.")
    return found


def _of(scaling: Scaling, ranks: int) -> list[record.Line]:
    return [line for line in scaling.lines if line.ranks == ranks]


def _crowded(line: record.Line) -> bool:
    by_host: dict[str, int] = {}
    for host, device, threads, subdomains in line.places:
        if device == "cpu" and subdomains:
            by_host[host] = by_host.get(host, 0) + threads
    return any(threads > line.machine.cores_in_affinity_mask for threads in by_host.values())


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _words(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def _settings(scaling: Scaling) -> str:
    first = scaling.lines[0]
    return yaml_text.dump({**first.study, "config": first.config})

"""``hpcdd report``: one HTML page, and its figures, of runs, of studies of runs, of scaling studies, of a headline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ..bench import curves
from ..config.parsers import COMMON, file_path
from ..core.errors import UserError
from ..core.files import writing
from ..studies import study_index
from . import run_page as of_run
from . import scaling_page, study_page
from .headline_page import section as of_headline
from .page import Section, write_page


def run(arguments: Sequence[str], out: TextIO = sys.stdout) -> None:
    """Writes the report and says where it is.

    Raises:
        UserError: a path is none of what can be reported, or something in it is damaged.
        WriteError: the report can't be written.
    """
    try:
        own, rest = parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"report: {error}; see `hpcdd report --help`") from error
    if unknown := [word for word in rest if word.startswith("-")]:
        raise UserError(f"report: {unknown[0]} is unknown; see `hpcdd report --help`")
    if not rest:
        raise UserError(
            "report: name a run directory, a study directory, or a file of `hpcdd scale`; see `hpcdd report --help`"
        )
    paths = [Path(word) for word in rest]
    write(paths, _output(paths, own.output), out)


def parser() -> argparse.ArgumentParser:
    """Of ``hpcdd report``."""
    made = argparse.ArgumentParser(
        prog="hpcdd report",
        usage="hpcdd report RUN|STUDYDIR|HEADLINE|SCALING.jsonl ... [--output FOLDER]",
        description=__doc__ + "\nOf a run: images with their boxes, curves, strategies compared, which subimage "
        "decided.\nOf a study: its table (also as CSV and LaTeX), and what is expected beside what was measured.\n"
        "Of HEADLINE, a folder of `hpcdd bench headline`: test accuracy against seconds of training.\n"
        "Of scaling: speed-up and efficiency with ideal lines, time by phase, bytes per rank.",
        epilog="examples:\n  hpcdd report runs/quickstart-001\n  hpcdd report studies/quick\n"
        "  hpcdd report scaling_strong.jsonl scaling_weak.jsonl --output report",
        **COMMON,
    )
    made.add_argument(
        "--output",
        type=file_path,
        metavar="FOLDER",
        help="default: RUN, STUDYDIR or HEADLINE itself, or SCALING-report beside the first file",
    )
    return made


def write(paths: Sequence[Path], output: Path, out: TextIO = sys.stdout) -> None:
    """Writes ``report.html``, ``figures/`` and, of studies, ``tables/``; prints the tables, and where the page is.

    Args:
        paths: run directories, study directories, folders of ``hpcdd bench headline`` and files of ``hpcdd scale``,
            in the order of the page.
        output: folder for the page.
        out: where to print.

    Raises:
        UserError, WriteError: as for :func:`run`.
    """
    with writing(output):
        sections = _sections(paths, output, out)
        output.mkdir(parents=True, exist_ok=True)
        write_page(output / "report.html", ", ".join(dict.fromkeys(its.title for its in sections)), sections)
    print(f"report: {output / 'report.html'}", file=out, flush=True)


def _sections(paths: Sequence[Path], output: Path, out: TextIO) -> list[Section]:
    found: list[Section] = []
    folders = [path for path in paths if path.is_dir()]
    for number, path in enumerate(folders):
        # Figures of several runs or studies have the same names.
        place = output if len(paths) == 1 else output / f"{number + 1}-{path.absolute().name}"
        if (path / study_index.NAME).exists():
            table = study_page.read(path)
            study_page.show(table, out)
            found.append(study_page.section(table, place, output))
        elif (path / curves.NAME).exists():
            found.append(of_headline(path, place))
        else:
            found.append(of_run.section(path, place))
    if files := [path for path in paths if path not in folders]:
        found += scaling_page.sections(files, output, out)
    return found


def _output(paths: Sequence[Path], wanted: Path | None) -> Path:
    if wanted is not None:
        return wanted
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0]
    if any(path.is_dir() for path in paths):
        raise UserError(
            f"report: {len(paths)} paths make one page; say where with --output FOLDER (or name one path at a time)"
        )
    return paths[0].with_name(f"{paths[0].stem}-report")

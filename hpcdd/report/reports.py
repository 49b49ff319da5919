"""``hpcdd report``: an HTML page with figures of runs, studies, scaling studies and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ..artifacts import device_file, headline_file, study_index
from ..core.errors import UserError
from ..core.files import writing
from . import run_page, scaling_page, study_page
from .device_page import section as of_device
from .headline_page import section as of_headline
from .page import Section, write_page


def write(paths: Sequence[Path], output: Path | None = None, out: TextIO = sys.stdout) -> None:
    """Writes ``report.html``, ``figures/`` and, for studies, ``tables/``; prints the tables and the path of the page.

    Args:
        paths: run directories, study directories, folders of ``hpcdd bench headline`` and ``hpcdd bench device``, and
            files of ``hpcdd scale``, in the order of the page.
        output: folder for the page; None: the path that is reported, or a folder next to the first file.
        out: where to print.

    Raises:
        UserError: a path is nothing that can be reported, or something in it is damaged.
        WriteError: the report can't be written.
    """
    output = _output(paths, output)
    with writing(output):
        sections = _sections(paths, output)
        output.mkdir(parents=True, exist_ok=True)
        write_page(output / "report.html", ", ".join(dict.fromkeys(section.title for section in sections)), sections)
    for section in sections:
        section.show(out)
    print(f"report: {output / 'report.html'}", file=out, flush=True)


def _sections(paths: Sequence[Path], output: Path) -> list[Section]:
    sections: list[Section] = []
    folders = [path for path in paths if path.is_dir()]
    for number, path in enumerate(folders):
        # Figures of several runs or studies have the same names.
        section_output = output if len(paths) == 1 else output / f"{number + 1}-{path.absolute().name}"
        if (path / study_index.NAME).exists():
            sections.append(study_page.section(study_page.read(path), section_output, output))
        elif (path / headline_file.NAME).exists():
            sections.append(of_headline(path, section_output))
        elif (path / device_file.NAME).exists():
            sections.append(of_device(path))
        else:
            sections.append(run_page.section(path, section_output))
    if files := [path for path in paths if path not in folders]:
        sections += scaling_page.sections(files, output)
    return sections


def _output(paths: Sequence[Path], wanted: Path | None) -> Path:
    if wanted is not None:
        return wanted
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0]
    if any(path.is_dir() for path in paths):
        raise UserError(
            f"report: {len(paths)} paths are combined into one page; name its folder with --output FOLDER (or give one "
            "path at a time)"
        )
    return paths[0].with_name(f"{paths[0].stem}-report")

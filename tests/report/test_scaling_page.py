"""Speed-up and efficiency from measurements whose answer is known."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hpcdd.artifacts.scaling_log import ScalingLine
from hpcdd.cli import report
from hpcdd.core.errors import UserError
from hpcdd.report import scaling_page
from hpcdd.report.scaling_facts import Spread, analyse

from ..studies import lines
from . import browser

PHASES = ("local", "gather", "dnn", "coherent")


def line(phase: str, ranks: int, repeat: int, seconds: float, **more: Any) -> ScalingLine:
    """A measurement of ten steps."""
    sent = 1000 if phase == "coherent" else 0
    fields = {"series": "abc", "phase": phase, "ranks": ranks, "repeat": repeat, "bytes_per_step": sent}
    return lines.line(**fields, seconds=10 * seconds, **more)


def known(kind: str = "strong") -> list[ScalingLine]:
    """Local: perfect. Coherent: 80% on 2, 50% on 4 ranks. DNN: as on one. The second repeat takes twice as long."""
    seconds = {
        "local": {1: 0.8, 2: 0.4, 4: 0.2},
        "gather": {1: 0.1, 2: 0.1, 4: 0.1},
        "dnn": {1: 0.02, 2: 0.02, 4: 0.02},
        "coherent": {1: 0.8, 2: 0.5, 4: 0.4},
    }
    scale = {n: n if kind == "weak" else 1 for n in (1, 2, 4)}
    return [
        line(phase, n, repeat, seconds[phase][n] * scale[n] * (1 + repeat), kind=kind)
        for phase in PHASES
        for n in (1, 2, 4)
        for repeat in (0, 1)
    ]


def changed(item: ScalingLine, **more: Any) -> ScalingLine:
    """The same line with other fields."""
    return ScalingLine.model_validate_json(json.dumps({**item.model_dump(mode="json"), **more}))


def write(path: Path, items: list[ScalingLine]) -> None:
    """A file of lines."""
    path.write_text("".join(item.model_dump_json() + "\n" for item in items))


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_efficiency_speed_up_and_the_whole_run(kind: str) -> None:
    (scaling,) = analyse([known(kind)])
    assert (scaling.ranks, scaling.phases, scaling.base) == ([1, 2, 4], list(PHASES), 1)
    of_local, of_coherent = scaling.efficiency["local"], scaling.efficiency["coherent"]
    assert [of_local[n].median for n in (1, 2, 4)] == pytest.approx([1, 1, 1])
    assert [of_coherent[n].median for n in (1, 2, 4)] == pytest.approx([1, 0.8, 0.5])
    assert [of_coherent[n].low for n in (1, 2, 4)] == pytest.approx([1, 0.8, 0.5])  # pairs of one repeat
    assert [scaling.speed_up("coherent")[n].median for n in (1, 2, 4)] == pytest.approx([1, 1.6, 2])
    assert scaling.run_seconds[1]["coherent"] == pytest.approx(200 * 1.2)
    factor = 4 if kind == "weak" else 1
    run = [(80 + 0.1 + 1 + 160), (20 + 0.1 + 1 + 80) * factor]
    assert scaling.efficiency["run"][4].median == pytest.approx(run[0] / run[1] / (1 if kind == "weak" else 4))


@pytest.mark.parametrize("values", [[1.0, 3.0], [0.1, 2.0], [0.9, 1.0, 1.4]])
def test_quartiles_lie_within_the_data(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) <= spread.low < spread.median < spread.high <= max(values)


def test_what_is_missing_is_left_out() -> None:
    some = [item for item in known() if (item.phase, item.ranks) != ("dnn", 2) and item.ranks > 1]
    (scaling,) = analyse([some])
    assert scaling.base == 2
    assert list(scaling.run_seconds) == [4]
    assert scaling.efficiency["coherent"][4].median == pytest.approx(0.5 * 0.5 / 0.4)
    assert 2 not in scaling.efficiency["run"]
    assert any("relative to it" in note for note in scaling_page.notes(scaling))


def test_series_do_not_mix_and_machines_are_reported() -> None:
    other = [changed(item, series="other", name="second") for item in known("weak")]
    first, second = analyse([[*known(), *other]])
    assert (first.name, second.name) == ("known", "second")
    assert scaling_page.notes(first) == []
    mixed = []
    for item in known():
        cores = max(1, item.ranks // 2)
        machine = {**item.machine.model_dump(), "cores": cores, "cores_in_affinity_mask": cores}
        mixed.append(changed(item, machine=machine, threads=2, places=[["a", "cpu", 2, 1]] * item.ranks))
    (mixed_scaling,) = analyse([mixed])
    notes = scaling_page.notes(mixed_scaling)
    assert "different machines" in notes[0].lower()
    assert notes[1] == "On 1, 2, 4 ranks, there were more threads than cores."


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name in ("src", "href") and value and "://" in value for name, value in attrs)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "td":
            self.cells.append(data.strip())


def test_the_report_is_one_page_and_four_figures_for_each_series(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    layout = {**lines.LAYOUT, "processors": ["P<script>"]}
    evil = [changed(item, layout=layout, series="weak1") for item in known("weak")]
    write(path, [*known(), *evil])
    out = io.StringIO()
    report.run_without_mpi([str(path)], out)
    folder = tmp_path / "s-report"
    assert out.getvalue().splitlines()[-1] == f"report: {folder / 'report.html'}"
    stems = {"known-strong-abc", "known-weak-weak1"}
    kinds = [f"{what}.{kind}" for what in ("speed-up", "efficiency", "time", "bytes") for kind in ("png", "svg")]
    assert {p.name for p in folder.iterdir()} == {"report.html", "figures"}
    assert {p.name for p in (folder / "figures").iterdir()} == {f"{stem}-{kind}" for stem in stems for kind in kinds}
    for path_of in (folder / "figures").iterdir():
        if path_of.suffix == ".png":
            assert min(Image.open(path_of).size) > 450
        else:
            assert ET.parse(path_of).getroot().tag.endswith("svg")
    page = _Page()
    page.feed((folder / "report.html").read_text())
    assert page.tags.count("svg") == 8
    assert "script" not in page.tags
    assert "0.800 (0.800 to 0.800)" in page.cells
    assert "1,000" in page.cells
    before = {p.name: p.read_bytes() for p in folder.rglob("*.*")}
    report.run_without_mpi([str(path)], out)
    assert {p.name: p.read_bytes() for p in folder.rglob("*.*")} == before
    assert browser.faults(opened, folder / "report.html") == []


def test_repeats_of_several_files_all_count(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        write(path, known())
    out = io.StringIO()
    report.run_without_mpi([*map(str, paths), "--output", str(tmp_path / "both")], out)
    shown = [line.replace("│", " ").split() for line in out.getvalue().splitlines()]
    assert ["known:", "strong", "scaling"] in shown
    assert [cells[2:4] for cells in shown if cells[:2] == ["local", "step"]] == [
        ["1", "4"],
        ["2", "4"],
        ["4", "4"],
    ]


def test_points_of_several_jobs_are_compared_by_the_median_with_a_note() -> None:
    """One file and one job for each number of ranks."""
    files = [[changed(item, job=f"j{n}") for item in known() if item.ranks == n] for n in (1, 2, 4)]
    (scaling,) = analyse(files)
    base = 0.8 * 1.5  # median of one and two times 0.8
    expected = [base / 0.5 / 2, base / 1.0 / 2]
    assert (scaling.efficiency["coherent"][2].low, scaling.efficiency["coherent"][2].high) == pytest.approx(
        (min(expected) + 0.25 * abs(expected[0] - expected[1]), max(expected) - 0.25 * abs(expected[0] - expected[1]))
    )
    assert scaling.unpaired == [2, 4]
    assert any("No job has measured 2, 4 ranks together with 1" in note for note in scaling_page.notes(scaling))
    (paired,) = analyse([known()])
    assert paired.unpaired == []


def test_a_study_of_one_phase_and_one_repeat_has_a_report(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    write(path, [item for item in known() if item.phase == "coherent" and item.repeat == 0 and item.ranks == 2])
    report.run_without_mpi([str(path)], io.StringIO())
    write(path, [changed(item, phase="alone") for item in known() if item.phase == "local"])
    out = io.StringIO()
    report.run_without_mpi([str(path)], out)
    assert "whole run" not in out.getvalue()


def test_repeats_are_counted_by_phase_and_idle_ranks_are_reported() -> None:
    some = [item for item in known() if item.phase == "local" or item.repeat == 0]
    places = [["a", "cpu", 1, 1]] * 3 + [["a", "cpu", 1, 0]]
    (scaling,) = analyse([[changed(item, places=places) if item.ranks == 4 else item for item in some]])
    assert (scaling.repeats["local"][4], scaling.repeats["coherent"][4]) == (2, 1)
    assert "On 4 ranks, some were idle; efficiency counts them as well." in scaling_page.notes(scaling)


def test_mixed_layouts_are_reported() -> None:
    both = [*known(), *(changed(item, layout={**lines.LAYOUT, "ranks_by_host": [1, 1]}) for item in known()[2:4])]
    (scaling,) = analyse([both])
    assert "On 2 ranks, several layouts or machines were measured; the figures mix them." in scaling_page.notes(scaling)


def test_an_empty_file_has_no_report(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("")
    with pytest.raises(UserError, match="it contains no measurements yet"):
        report.run_without_mpi([str(path)])
    assert [p.name for p in tmp_path.iterdir()] == ["s.jsonl"]

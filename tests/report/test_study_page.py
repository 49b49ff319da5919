"""The page of a study, and its tables on the terminal, from made studies."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hpcdd.artifacts import study_index
from hpcdd.cli import report
from hpcdd.core.errors import UserError
from hpcdd.report import study_page

from ..studies import made
from . import browser


def measured(labels: dict[str, str], seed: int) -> dict[str, Any]:
    """The DNN is below the average; the vote is below too."""
    base = 0.6 - 0.1 * (labels.get("decomposition.grid") == "4x4") + 0.01 * seed
    return {"local": [base] * 4, "average": base, "majority": base - 0.01 - seed / 1000, "dnn": base - 0.1 + seed / 99}


def page(folder: Path, values: Any = measured, **more: Any) -> str:
    """The text of a study's page, written into the study's directory."""
    out = io.StringIO()
    report.run_without_mpi([str(made.study(folder, values, **more))], out)
    assert out.getvalue().endswith(f"report: {folder / 'report.html'}\n")
    return (folder / "report.html").read_text()


def text_of(html: str) -> str:
    """Without tags and drawings."""
    text = re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style|head).*?</\1>", "", html, flags=re.DOTALL))
    return " ".join(unescape(text).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of two rows, its folder and its page."""
    folder = tmp_path_factory.mktemp("study")
    return folder, page(folder)


def test_the_table_and_the_hypotheses_are_shown(written: tuple[Path, str]) -> None:
    text = text_of(written[1])
    assert "6 of 6 runs are complete: 2 rows of the table, 3 seeds." in text
    assert "2x2 0.6100 ± 0.0100 0.6100 ± 0.0100 0.5990 ± 0.0090" in text
    assert "Contradicted: DNN above average." in text
    assert "DNN above average contradicted above in 0 of 2, 0 significant -0.0899 ± 0.0101" in text
    assert (
        "average above majority vote as expected above in 2 of 2, 2 significant +0.0110 ± 0.0010 < 0.0001 (above)"
        in text
    )


def test_figures_are_drawn_and_stand_in_the_page(written: tuple[Path, str]) -> None:
    folder, html = written
    names = ["strategies", "local", "costs", "differences"]
    assert html.count("<svg") == len(names)
    for name in names:
        for ending in ("png", "svg"):
            assert (folder / "figures" / f"{name}.{ending}").stat().st_size > 2000


def test_tables_for_papers(written: tuple[Path, str]) -> None:
    folder, html = written
    for name in ("table.csv", "table.tex", "runs.csv"):
        assert (folder / "tables" / name).read_text().count("\n") >= 3
        assert f'href="tables/{name}"' in html


def test_texts_are_escaped(tmp_path: Path) -> None:
    html = page(tmp_path, lambda labels, s: "<script>alert(1)</script>" if s == 1 else measured(labels, s),
                title="<script>a</script>", matrix={"<b>case</b>": ["<i>"], "seed": [0, 1, 2]})  # fmt: skip
    assert "<script>" not in html
    assert not re.search(r"<b>case|<i>\W", html.replace("<i>above", "").replace("<i>at", ""))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_markup_in_labels_is_escaped(tmp_path: Path) -> None:
    labels = {"one": "=1+1\x1b[2J", "two": "[$x^$] #50%", "three": "\u202e"}
    folder = made.study(
        tmp_path / "study", measured, title="\x1b]0;title\x07", matrix={"case": list(labels), "seed": [0, 1]}
    )
    content = json.loads((folder / study_index.NAME).read_bytes())
    for run in content["runs"]:
        run["labels"]["case"] = labels[run["labels"]["case"]]
    (folder / study_index.NAME).write_text(json.dumps(content))
    report.run_without_mpi([str(folder)], io.StringIO())
    (head, *rows) = csv.reader((folder / "tables" / "table.csv").open(newline=""))
    assert head[0] == "case"
    assert [row[0] for row in rows] == [r"'=1+1\x1b[2J", "[$x^$] #50%", r"\u202e"]
    latex = (folder / "tables" / "table.tex").read_text()
    assert r"{[}\$x\textasciicircum{}\$] \#50\% &" in latex
    out = io.StringIO()
    study_page.show(study_page.read(folder), out)
    for text in (out.getvalue(), latex, (folder / "report.html").read_text()):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_failed_runs_are_reported(tmp_path: Path) -> None:
    text = text_of(page(tmp_path, lambda labels, s: ["the loss is NaN", None, measured(labels, s)][s]))
    assert "4 of 6 runs have no result (2 failed, 2 not complete)" in text
    assert "grid=2x2,seed=0 failed the loss is NaN" in text
    assert "grid=4x4,seed=1 not begun" in text
    assert "not significant with 2 pairs" in text


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    html = page(tmp_path, lambda *_: None)
    assert "0 of 6 runs are complete" in text_of(html)
    assert "<svg" not in html
    assert not (tmp_path / "figures").exists()


def test_the_terminal_shows_the_same(written: tuple[Path, str]) -> None:
    out = io.StringIO()
    study_page.show(study_page.read(written[0]), out)
    shown = [" ".join(line.replace("│", " ").split()) for line in out.getvalue().splitlines()]
    assert "a made study: test accuracy" in shown
    assert "2x2 0.6100 ± 0.0100 0.6100 ± 0.0100 0.5990 ± 0.0090 0.5201 ± 0.0201" in shown
    assert "DNN above average contradicted above in 0 of 2, 0 significant -0.0899 ± 0.0101 1.0000 (above)" in shown


def test_the_page_may_be_in_another_folder(tmp_path: Path) -> None:
    folder = made.study(tmp_path / "study", measured)
    report.run_without_mpi([str(folder), "--output", str(tmp_path / "page")], io.StringIO())
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"report.html", "figures", "tables"}
    assert {path.name for path in folder.iterdir()} == {"study.json", "runs"}


def test_links_of_several_studies_on_one_page_lead_to_their_tables(tmp_path: Path) -> None:
    folders = [made.study(tmp_path / name, measured) for name in ("a", "b")]
    report.run_without_mpi([*map(str, folders), "--output", str(tmp_path / "page")], io.StringIO())
    links = re.findall(r'href="([^#"]+)"', (tmp_path / "page/report.html").read_text())
    assert len(set(links)) == 2 * len(study_page.FILES)
    assert all((tmp_path / "page" / link).is_file() for link in links)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither a run nor a study"):
        report.run_without_mpi([str(tmp_path)], io.StringIO())
    with pytest.raises(UserError, match="name its folder with --output"):
        report.run_without_mpi([str(tmp_path), "a.jsonl"], io.StringIO())


def test_the_page_can_be_read(opened: Any, tmp_path: Path) -> None:
    """Many rows and columns, long names, failed runs."""

    def all_strategies(labels: dict[str, str], seed: int) -> Any:
        if labels["network"].startswith("a network") and seed == 1:
            return "the training loss of subdomain 3 is nan in epoch 2; " * 3
        more = {"log_pool": 0.62, "coherent_transfer": 0.8 + seed / 99, "coherent_scratch": 0.7, "global": 0.75}
        return measured(labels, seed) | more

    matrix = {
        "network": ["VGG", "a network with a rather long name"],
        "decomposition.grid": [[2, 2], [4, 4]],
        "decomposition.overlap": [0, 4],
        "seed": [0, 1, 2],
    }
    page(tmp_path, all_strategies, matrix=matrix, expect=["dnn > average", "coherent_transfer >= dnn"])
    assert browser.faults(opened, tmp_path / "report.html") == []

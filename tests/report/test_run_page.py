"""The page of a run: what it says is what the run's files say; it can be read; hostile and odd runs make it as well."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup, escape

from hpcdd.artifacts import predictions
from hpcdd.cli import report
from hpcdd.core.errors import UserError
from hpcdd.core.texts import printable
from hpcdd.report import run_facts
from hpcdd.report.drawing import Figure, columns
from hpcdd.report.run_data import read
from hpcdd.studies.hypotheses import holm

from ..artificial import make_predictions
from . import browser, made_run

KINDS: dict[str, dict[str, Any]] = {
    "overlap, a coarse subdomain, from scratch as well": {
        "overlap": 1, "coarse": True, "starts": ("transfer", "scratch"), "image_shape": (3, 12, 16),
    },
    "volumes": {"grid": (2, 2, 2), "image_shape": (1, 8, 10, 12), "num_classes": 2},
    "one subdomain, no coherent phase, nothing watched": {"grid": (1, 1), "starts": (), "validation": False},
    "more subdomains and classes than are shown": {"grid": (8, 8), "image_shape": (1, 16, 16), "num_classes": 110},
}  # fmt: skip


def page(folder: Path, output: Path | None = None) -> str:
    out = StringIO()
    report.run_without_mpi([str(folder), *([] if output is None else ["--output", str(output)])], out)
    path = (output or folder) / "report.html"
    assert out.getvalue().endswith(f"report: {path}\n")
    return path.read_text()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_page_can_be_read(kind: dict[str, Any], opened: Any, tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run", **kind)
    text = page(folder)
    assert browser.faults(opened, folder / "report.html") == []
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
    assert text.count("<svg ") == len(names)
    assert "\N{MULTIPLICATION SIGN}" not in text, "a formula on an axis"
    always = {"strategies", "classes", "calibration", "images", "attribution", "attribution-classes"}
    always |= {f"{what}-{against}" for what in ("loss", "accuracy") for against in ("epochs", "seconds")}
    assert names >= always
    assert ("confusion" in names) == (kind.get("num_classes", 3) <= 100)


def test_the_page_shows_the_content_of_the_files(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run")
    text = re.sub(r"<svg .*?</svg>", "", page(folder), flags=re.DOTALL)
    split_predictions = predictions.read(folder / "decisions.h5")
    for name, probabilities in split_predictions.strategies.items():
        accuracy = float((probabilities.argmax(1) == split_predictions.labels).mean())
        assert f"{accuracy:.4f} (" in text, name
    assert "4 ranks on 1 host" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "900" in text


def test_the_page_needs_only_the_run_directory_in_any_place(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run")
    taken = tmp_path / "laptop"
    taken.mkdir()
    for name in ("config.yaml", "results.json", "metrics.jsonl", "decisions.h5"):
        shutil.copy(folder / name, taken / name)
    output = tmp_path / "elsewhere"
    assert "stripes" in page(taken, output)
    assert sorted(path.name for path in taken.iterdir()) == sorted(
        ["config.yaml", "results.json", "metrics.jsonl", "decisions.h5"]
    )


def test_texts_are_escaped(tmp_path: Path) -> None:
    text = page(made_run.run(tmp_path / "run", dataset='<script>alert("1")</script> & $x_1$'))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


NASTY = ("=black\x1b[31m", "<b>&$x^$\u202e", "#000000\n")


def test_nasty_class_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run")
    dataclasses.replace(predictions.read(folder / "decisions.h5"), class_names=NASTY).write(folder / "decisions.h5")
    text = page(folder)
    for name in NASTY:
        assert str(escape(printable(name))) in text
    assert "\x1b" not in text
    figures = list((folder / "figures").glob("*.svg"))
    drawn = [" ".join(ElementTree.parse(figure).getroot().itertext()) for figure in figures]
    assert any(printable(NASTY[0]) in drawing for drawing in drawn)
    inline = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(inline) == len(figures)
    assert all("currentColor" in svg for svg in inline)
    assert any(">=black" in svg and ">#000000" in svg for svg in inline)


def test_long_class_names_stand_in_full_below_the_matrix(tmp_path: Path) -> None:
    folder, names = made_run.run(tmp_path / "run"), ("a bird of paradise\x07, male", "b", "c")
    dataclasses.replace(predictions.read(folder / "decisions.h5"), class_names=names).write(folder / "decisions.h5")
    assert f"In full: {printable(names[0])}.</figcaption>" in page(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "results.json").unlink(), "holds an unfinished run"),
        (lambda folder: (folder / "decisions.h5").write_bytes(b"no"), "decisions.h5"),
        (lambda folder: (folder / "metrics.jsonl").write_text('{"phase": 1}\n'), "metrics.jsonl:1 is damaged"),
        (lambda folder: (folder / "results.json").write_text("{}"), "results.json is damaged"),
        (lambda folder: made_run.make_predictions(9, 3).write(folder / "decisions.h5"), "is of another run"),
        (shutil.rmtree, "run"),
    ],
    ids=["unfinished", "no HDF5", "a bad line", "no results", "another run's decisions", "nothing"],
)
def test_mistakes(spoil: Any, message: str, tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        page(folder)
    assert not (folder / "report.html").exists()


def test_a_large_confusion_matrix_has_numbers_that_the_caption_explains(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run", num_classes=38)
    names = read(folder).predictions.class_names
    assert f"By number: 0 {names[0]}, 1 {names[1]}, " in page(folder)
    assert f"37 {names[37]}.</figcaption>" in page(folder)


def test_votes_are_numbers_that_the_page_explains(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run")
    text = page(folder)
    run = read(folder)
    for number, name in enumerate(run.predictions.class_names):
        assert f" {number}&nbsp;{escape(name)}" in text


@pytest.mark.parametrize(
    ("heights", "number"), [([1], 1), ([1, 1], 2), ([1, 1, 1], 3), ([1] * 4, 2), ([1] * 5, 3), ([3, 1, 1], 2), ([], 1)]
)
def test_figures_leave_little_of_the_page_empty(heights: list[float], number: int) -> None:
    assert columns([Figure("", "", Markup(), height) for height in heights]) == number


def test_the_head_says_what_was_gained_for_what(tmp_path: Path) -> None:
    run = read(made_run.run(tmp_path / "run", starts=("transfer",)))
    test, seconds = run.results.accuracy["test"], run.results.core_seconds
    by_name = {name: (at, rate) for name, _, at, rate in run_facts.spent(run)}
    assert by_name["local"] == (seconds["local"], max(test.local))
    assert by_name["average"][0] == seconds["local"]
    assert by_name["coherent_transfer"] == (
        sum(seconds.get(phase, 0) for phase in ("local", "gather", "dnn", "coherent_transfer")),
        test.coherent_transfer,
    )
    assert run_facts.gained(run).startswith(
        "The average probability is 10.0 percentage points above the best local CNN. The DNN is level with the average"
    )
    assert "The global CNN was not trained" in run_facts.gained(run)
    values = [value for value, _ in run_facts.cards(run)]
    assert values[1:3] == ["0.600", "0.500"]


def test_a_coherent_model_that_starts_as_the_pool_is_compared_with_the_pool(tmp_path: Path) -> None:
    folder = made_run.run(tmp_path / "run", starts=("transfer",))
    text = (folder / "config.yaml").read_text()
    assert "dnn_start: trained" in text
    (folder / "config.yaml").write_text(text.replace("dnn_start: trained", "dnn_start: pool"))
    run = read(folder)
    assert run_facts.transfer_sequence(run) == ("log_pool", "coherent_transfer")
    assert "is level with the log-opinion pool. The DNN is" in run_facts.gained(run)
    assert "log_pool" in [name for name, *_ in run_facts.spent(run)]


@pytest.mark.parametrize(
    ("hits", "n", "interval"), [(5, 10, (0.23659, 0.76341)), (0, 4, (0.0, 0.48990)), (4, 4, (0.51010, 1.0))]
)
def test_accuracies_have_wilsons_interval(hits: int, n: int, interval: tuple[float, float]) -> None:
    split_predictions = make_predictions(n, 2, 2, strategies=["dnn"])
    labels = split_predictions.predicted("dnn") ^ (np.arange(n) >= hits)
    (entry,) = run_facts.accuracy_intervals(dataclasses.replace(split_predictions, labels=labels))
    assert entry.accuracy == hits / n
    assert (entry.low, entry.high) == pytest.approx(interval, abs=1e-5)


def two_sided_binomial(gains: int, losses: int) -> float:
    """P of a split that is no more probable than this one, of that many tosses of a coin."""
    n = gains + losses
    return min(1.0, sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(gains - losses)) / 2**n)


def test_mcnemars_test_and_confusions(tmp_path: Path) -> None:
    split_predictions = predictions.read(made_run.run(tmp_path / "run") / "decisions.h5")
    rows = run_facts.pairs(split_predictions)
    assert len(rows) == len(split_predictions.strategies) - 1
    assert all(int(row[2]) >= int(row[3]) for row in rows)
    exact = [two_sided_binomial(int(row[2]), int(row[3])) for row in rows]
    assert [row[4] for row in rows] == ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in holm(exact)]
    matrix = np.array([[5, 3, 0], [1, 9, 0], [0, 2, 0]])
    assert run_facts.most_confused(matrix, ["a", "b", "c"]) == [
        ["a", "b", "3", "37.5%"], ["c", "b", "2", "100.0%"], ["b", "a", "1", "10.0%"],
    ]  # fmt: skip


def test_attribution_by_class() -> None:
    values, predicted = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]), np.array([0, 0, 2])
    by_class = run_facts.attribution_by_class(values, predicted, 3)
    assert by_class[0].tolist() == [2.0, 3.0]
    assert np.isnan(by_class[1]).all()
    assert by_class[2].tolist() == [5.0, 0.0]


def test_curves_go_by_phase_and_subdomain(tmp_path: Path) -> None:
    run = read(made_run.run(tmp_path / "run"))
    assert run.phases == ["local", "dnn", "coherent_transfer"]
    assert [s for s, _ in run.curves("local")] == [0, 1, 2, 3]
    assert [line.epoch for _, lines in run.curves("dnn") for line in lines] == [1, 2, 3]

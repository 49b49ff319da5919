"""The page of `bench headline`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from hpcdd.artifacts import headline_file
from hpcdd.artifacts.documents import write_document
from hpcdd.cli import report
from hpcdd.core.errors import UserError

from ..bench.headlines import made
from . import browser


def test_the_page_can_be_read(opened: Any, tmp_path: Path) -> None:
    headline = made(**{"global": [0.6, 0.72, 0.81], "dnn": [0.5, 0.71], "coherent_transfer": [0.69, 0.8]})
    write_document(tmp_path / headline_file.NAME, headline)
    out = io.StringIO()
    report.run_without_mpi([str(tmp_path)], out)
    page = (tmp_path / "report.html").read_text()
    assert "made: accuracy against time" in page
    assert "<td>0.75</td>" in page
    assert "<b>0.8100</b>global CNN, DDP: test accuracy after 30.0 s" in page
    conclusion = "To reach 0.80, DDP took 30.0 s and the coherent model 40.0 s."
    assert conclusion in page
    assert conclusion in out.getvalue()
    assert "after the last epoch of each model" in out.getvalue()
    assert browser.faults(opened, tmp_path / "report.html") == []


@pytest.mark.parametrize(("start", "seconds"), [("trained", 20.0), ("pool", 40.0)])
def test_a_model_that_starts_as_the_pool_does_not_continue_the_dnn(start: str, seconds: float) -> None:
    headline = made(**{"global": [0.6], "dnn": [0.5, 0.71], "coherent_transfer": [0.69, 0.8]})
    headline.config["coherent"] = {"dnn_start": start}
    assert headline.seconds_to(0.7, "coherent_transfer") == seconds


def test_the_page_is_written_though_nobody_reads_the_tables(tmp_path: Path) -> None:
    """As `hpcdd report FOLDER | head -1` does."""

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    write_document(tmp_path / headline_file.NAME, made(**{"global": [0.6], "dnn": [0.5], "coherent_transfer": [0.7]}))
    with pytest.raises(BrokenPipeError):
        report.run_without_mpi([str(tmp_path)], Closed())
    assert (tmp_path / "report.html").stat().st_size > 5000


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        ("curves", {}, "curves"),
        ("curves", {"global": [{"epoch": 1, "seconds": 1.0, "accuracy": 0.5}]}, "curves"),
        ("curves", {"global": [], "dnn": [], "coherent_transfer": []}, "curves"),
        ("samples", {"train": 9}, "samples"),
        ("parameters", {}, "parameters"),
        ("places", [], "places"),
    ],
    ids=["no curves", "one curve", "empty curves", "samples", "parameters", "places"],
)
def test_an_incomplete_result_is_refused(field: str, value: object, key: str, tmp_path: Path) -> None:
    complete = made(**{"global": [0.6], "dnn": [0.5], "coherent_transfer": [0.7]}).model_dump(mode="json")
    (tmp_path / headline_file.NAME).write_text(json.dumps(complete | {field: value}))
    with pytest.raises(UserError, match=f"headline.json is damaged or of another format: {key}: "):
        report.run_without_mpi([str(tmp_path)])


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / headline_file.NAME).write_text(json.dumps({"name": "x"}))
    with pytest.raises(UserError, match="is damaged or of another format: dataset: Field required"):
        report.run_without_mpi([str(tmp_path)])

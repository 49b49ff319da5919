"""Tables of made studies, against values that were worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcdd.core.errors import UserError
from hpcdd.studies import study_results
from hpcdd.studies.study_directory import StudyDirectory
from hpcdd.studies.study_tables import StudyTable, heading, tabulate

from . import made


def plain(labels: dict[str, str], seed: int) -> dict[str, Any]:
    """On 4 x 4 all is worse by a tenth; a seed adds a hundredth."""
    base = 0.6 - 0.1 * (labels.get("decomposition.grid") == "4x4") + 0.01 * seed
    local = [base - 0.2, base, base, base - 0.2]
    return {"local": local, "average": base, "majority": base - 0.01, "dnn": base + 0.1 + seed / 1000}


def table(folder: Path, measured: Any = plain, **more: Any) -> StudyTable:
    return tabulate(study_results.read(made.study(folder, measured, **more)))


def test_mean_and_standard_deviation_over_the_seeds(tmp_path: Path) -> None:
    study_table = table(tmp_path)
    assert (study_table.axes, study_table.columns, study_table.seeds) == (
        ["decomposition.grid"],
        ["local", "average", "majority", "dnn"],
        [0, 1, 2],
    )
    assert [row.name for row in study_table.rows] == ["2x2", "4x4"]
    first, second = study_table.rows
    assert first.accuracy["average"].mean == pytest.approx(0.61)
    assert first.accuracy["average"].std == pytest.approx(0.01)  # of 0.60, 0.61, 0.62
    assert first.accuracy["local"].mean == pytest.approx(0.51)
    assert first.local_range == pytest.approx((0.4, 0.62))
    assert second.accuracy["dnn"].mean == pytest.approx(0.611)
    assert second.accuracy["dnn"].n == second.complete == 3


def test_what_strategies_cost(tmp_path: Path) -> None:
    row = table(tmp_path, lambda *_: {**plain({}, 0), "coherent_transfer": 0.8, "global": 0.8}).rows[0]
    cost = {name: cell.mean for name, cell in row.core_seconds.items() if cell.n}
    assert cost == {
        "local": 40,
        "average": 40.5,
        "majority": 40.5,
        "dnn": 42.5,
        "coherent_transfer": 72.5,
        "global": 120,
    }
    assert row.parameters == {
        "local": 860,
        "average": 860,
        "majority": 860,
        "dnn": 900,
        "coherent_transfer": 890,
        "global": 1000,
    }


def test_a_coarse_subdomain_is_no_subimage(tmp_path: Path) -> None:
    five = table(tmp_path, lambda *_: {**plain({}, 0), "local": [0.5, 0.5, 0.5, 0.5, 0.9]}).rows[0]
    assert five.local_range == (0.5, 0.5)
    assert five.accuracy["local"].mean == 0.5


def test_runs_that_failed_or_are_missing_stay_in_their_rows(tmp_path: Path) -> None:
    def some(labels: dict[str, str], seed: int) -> Any:
        if labels["decomposition.grid"] == "2x2" and seed:
            return "the loss is NaN" if seed == 1 else None
        return plain(labels, seed)

    folder = made.study(tmp_path, some)
    (folder / "runs" / "grid=2x2,seed=2" / "logs").mkdir(parents=True)
    study_table = tabulate(study_results.read(folder))
    assert [run.condition for run in study_table.rows[0].runs] == ["complete", "failed", "unfinished"]
    assert study_table.rows[0].runs[1].error == "the loss is NaN"
    assert (study_table.rows[0].accuracy["dnn"].n, study_table.rows[0].accuracy["dnn"].std) == (1, None)
    assert [row.p is None for row in study_table.test_results[0].rows] == [True, False]
    assert len(study_table.outcome.missing) == 2


def test_a_row_without_any_run(tmp_path: Path) -> None:
    study_table = table(tmp_path, lambda labels, s: None if labels["decomposition.grid"] == "4x4" else plain(labels, s))
    assert study_table.rows[1].complete == 0
    assert study_table.rows[1].accuracy["dnn"].mean is None
    assert study_table.test_results[0].rows[1].verdict == "not measured"


def test_a_study_of_seeds_alone_has_one_row(tmp_path: Path) -> None:
    study_table = table(tmp_path, matrix={"seed": [3, 4]}, columns=["dnn", "coherent_scratch"])
    assert [row.name for row in study_table.rows] == [""]
    assert (study_table.seeds, study_table.columns) == ([3, 4], ["dnn", "coherent_scratch"])
    assert study_table.rows[0].accuracy["coherent_scratch"].n == 0


def test_hypotheses_are_tested(tmp_path: Path) -> None:
    above, equal = table(tmp_path, expect=["dnn > majority", "majority >= average"]).test_results
    assert above.pooled.mean == pytest.approx(0.111)
    assert above.pooled.verdict == "as expected"
    assert (equal.pooled.n, equal.pooled.mean, equal.pooled.p) == (6, -0.01, None)  # all differences are equal
    assert equal.pooled.verdict == "not significant"


def test_headings() -> None:
    assert [heading(axis) for axis in ("decomposition.grid", "data.validation_fraction", "network")] == [
        "grid",
        "validation fraction",
        "network",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("study.json", "{", "damaged"),
        ("study.json", '{"format": 2, "name": "a", "title": "a", "runs": []}', "format"),
        ("study.json", '{"name": "a", "title": "a", "runs": [{"id": "../x", "fields": {}, "labels": {}}]}', "s.0.id"),
        ("study.json", '{"name": "a", "title": "a", "matrix": {"m": [1]}, "runs": [{"id": "x", "fields": {}, '
         '"labels": {}}]}', "no label for m"),
        ("runs/grid=2x2,seed=0/results.json", '{"accuracy": {}}', "results.json is damaged"),
        ("runs/grid=2x2,seed=0/results.json", "[]", "results.json is damaged"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    made.study(tmp_path, lambda labels, seed: "failed" if seed == 1 else plain(labels, seed))
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        tabulate(study_results.read(tmp_path))


@pytest.mark.parametrize("content", ["null", "5", "[1]", "{", "[" * 10**5, '{"exit_code": 1}', "\x00"])
def test_a_run_with_a_damaged_record_of_its_failure_has_failed(tmp_path: Path, content: str) -> None:
    """For `hpcdd study` and for the report."""
    made.study(tmp_path, lambda labels, seed: "failed" if seed == 1 else plain(labels, seed))
    name = "grid=2x2,seed=1"
    (tmp_path / f"failed/{name}.json").write_text(content)
    (run,) = [run for run in tabulate(study_results.read(tmp_path)).outcome.missing if run.entry.id == name]
    assert run.condition == "failed"
    assert f"failed/{name}.json is damaged or of another format: " in (run.error or "")
    assert StudyDirectory(tmp_path).failure(name) == run.error


def test_another_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study directory"):
        study_results.read(tmp_path)

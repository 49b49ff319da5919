"""Tables of studies as text, from made studies."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from hpcdd.report import study_texts as texts
from hpcdd.studies import study_results
from hpcdd.studies.study_tables import StudyTable, tabulate

from ..studies import made


def measured(labels: dict[str, str], seed: int) -> dict[str, Any]:
    base = 0.6 - 0.1 * (labels.get("decomposition.grid") == "4x4") + 0.01 * seed
    return {
        "local": [base] * 4,
        "average": base,
        "majority": base - 0.01 - seed / 1000,
        "dnn": base + 0.1 + seed / 1000,
    }


def table(folder: Path, values: Any = measured, **more: Any) -> StudyTable:
    return tabulate(study_results.read(made.study(folder, values, **more)))


def test_cells(tmp_path: Path) -> None:
    study_table = table(tmp_path, columns=["average", "dnn", "global"])
    assert texts.head(study_table) == ["grid", "average", "DNN", "global CNN"]
    assert texts.body(study_table)[0] == ["2x2", "0.6100 ± 0.0100", "0.7110 ± 0.0110", "-"]
    single = table(tmp_path / "one", matrix={"seed": [5]}, columns=["dnn"])
    assert texts.body(single) == [["0.7550"]]
    assert any("one seed" in note for note in texts.notes(single))


def test_verdicts_as_text(tmp_path: Path) -> None:
    study_table = table(tmp_path, expect=["dnn > average", "majority >= dnn", "majority >= average", "dnn > global"])
    above, below, near, nothing = study_table.test_results
    assert texts.hypothesis_text(below.hypothesis) == "majority vote at least DNN"
    assert texts.verdict(above.pooled, "pair") == "as expected"
    assert texts.verdict(below.pooled, "pair") == "contradicted"
    assert texts.verdict(nothing.pooled, "pair") == "not measured: no run has both strategies"
    assert texts.difference(above.pooled) == "+0.1010 ± 0.0010"
    assert texts.p_value(above.pooled) == "< 0.0001 (above)"
    assert texts.p_value(nothing.pooled) == "no test"
    assert texts.verdict(near.rows[0]) == "contradicted"
    assert texts.difference(near.rows[0]) == "-0.0110 ± 0.0010"


def test_differences_that_are_not_significant_with_few_seeds(tmp_path: Path) -> None:
    def noisy(_: dict[str, str], seed: int) -> dict[str, float]:
        return {"dnn": 0.6, "average": 0.6 - 0.01 * (1.5 - seed), "majority": 0.6 + 0.01 * (1.5 - seed)}

    above, below = table(tmp_path, noisy, expect=["dnn > average", "dnn >= majority"]).test_results
    assert texts.verdict(above.rows[0]) == "as expected, not significant with 3 seeds"
    assert texts.verdict(below.rows[0]) == "below on average, not significant with 3 seeds"
    (reverse,) = table(tmp_path / "reverse", noisy, expect=["average > dnn"]).test_results
    assert texts.verdict(reverse.rows[0]) == "not confirmed, not above on average, with 3 seeds"
    assert texts.verdict(below.pooled, "pair") == "below on average, not significant with 6 pairs"


def test_missing_runs_are_reported(tmp_path: Path) -> None:
    def some(labels: dict[str, str], seed: int) -> Any:
        return {0: "NaN", 1: None, 2: measured(labels, seed)}[seed]

    notes = texts.notes(table(tmp_path, some))
    assert notes[0] == "4 of 6 runs have no result (2 failed, 2 not complete); only the others are counted."
    assert "stripes: 90" in notes[-1]
    assert not any("no result" in note for note in texts.notes(table(tmp_path / "all")))


def test_strategies_that_some_runs_lack(tmp_path: Path) -> None:
    def some(labels: dict[str, str], seed: int) -> Any:
        return measured(labels, seed) | ({"global": 0.7} if seed == 1 else {})

    assert any("2x2; 4x4" in note for note in texts.notes(table(tmp_path, some)))


def test_csv_holds_the_same_numbers(tmp_path: Path) -> None:
    study_table = table(tmp_path, lambda labels, seed: "x" if seed == 2 else measured(labels, seed))
    lines = list(csv.DictReader(io.StringIO(texts.table_csv(study_table))))
    assert [line["decomposition.grid"] for line in lines] == ["2x2", "4x4"]
    assert (lines[0]["average_mean"], lines[0]["dnn_seeds"]) == ("0.605", "2")
    runs = list(csv.DictReader(io.StringIO(texts.runs_csv(study_table))))
    assert [(run["id"], run["condition"], run["seed"], run["dnn"]) for run in runs[:3]] == [
        ("grid=2x2,seed=0", "complete", "0", "0.7"),
        ("grid=2x2,seed=1", "complete", "1", "0.711"),
        ("grid=2x2,seed=2", "failed", "2", ""),
    ]


def test_latex_is_for_booktabs_and_escaped(tmp_path: Path) -> None:
    study_table = table(tmp_path, matrix={"my_case": ["50% & more", "-1"], "seed": [0, 1]}, columns=["average", "dnn"])
    lines = texts.latex(study_table).splitlines()
    assert lines[2] == r"\begin{tabular}{lrr}"
    assert lines[3:6] == [r"\toprule", r"my case & average & DNN \\", r"\midrule"]
    assert lines[6] == r"50\% \& more & 0.6050 $\pm$ 0.0071 & 0.7055 $\pm$ 0.0078 \\"
    assert lines[7].startswith("-1 & ")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert texts.escaped("a\\b~^<") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}\textless{}"

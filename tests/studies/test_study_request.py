"""Study files and command lines: what is to be done."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from hpcdd.cli import study as command
from hpcdd.cli.parser import parse
from hpcdd.core.errors import UserError
from hpcdd.studies import dry_run
from hpcdd.studies.study_directory import StudyDirectory, index_of
from hpcdd.studies.study_request import StudyRequest

from ..plan.machines import machine, step

TEXT = """
title: A trial
config:
  data:
  model: {name: vgg1, width: 8}
  local: {epochs: 2}
matrix:
  decomposition.grid: [[2, 2], [1, 2]]
  coherent.dropout_scale: [1.0, 0.5]
  seed: [0, 1]
expect: [dnn > average]
variants:
  quick:
    title: A short trial
    config:
      local: {batch_size: 64}
    matrix:
      coherent.dropout_scale: null
      aggregation.features: [logits, probabilities]
      seed: [3]
    ranks: 2
    table: {columns: [average, dnn]}
"""


@pytest.fixture
def study(tmp_path: Path) -> str:
    path = tmp_path / "a trial.yaml"
    path.write_text(TEXT)
    return str(path)


def ordered(*arguments: str) -> StudyRequest:
    return command.request(arguments)


def test_a_study(study: str) -> None:
    order = ordered(study, "--local.epochs", "3", "--only", "*grid=2x2*seed=1")
    assert (order.name, order.output, order.ranks, order.retry) == ("a-trial", Path("studies/a-trial"), None, False)
    assert len(order.runs) == 8
    assert [run.id for run in order.chosen] == [
        "grid=2x2,dropout_scale=1.0,seed=1",
        "grid=2x2,dropout_scale=0.5,seed=1",
    ]
    config = order.chosen[1].config
    assert (config.name, config.seed, config.local.epochs, config.coherent.dropout_scale) == ("a-trial", 1, 3, 0.5)
    assert config.model.width == 8
    content = index_of(order)
    assert (content.title, content.variant, content.expect) == ("A trial", None, ("dnn > average",))
    assert content.config["local"] == {"epochs": 3}
    assert content.axes == ["decomposition.grid", "coherent.dropout_scale"]
    assert content.seed(content.runs[1]) == 1


def test_a_variant_changes_what_it_names(study: str) -> None:
    order = ordered(study, "--variant", "quick", "--output", "x", "--retry")
    assert (order.output, order.ranks, order.retry, order.variant) == (Path("x"), 2, True, "quick")
    assert ordered(study, "--variant", "quick", "--ranks", "3").ranks == 3
    assert [run.id for run in order.runs] == [
        f"grid={grid},features={features},seed=3" for grid in ("2x2", "1x2") for features in ("logits", "probabilities")
    ]
    assert (order.runs[0].config.local.epochs, order.runs[0].config.local.batch_size) == (2, 64)
    content = index_of(order)
    assert (content.title, content.expect) == ("A short trial", ("dnn > average",))
    assert content.table.columns == ("average", "dnn")


def test_paths_of_the_command_line_are_resolved(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCDD_TEST", str(Path(study).parent))
    arguments = ["$HPCDD_TEST/a trial.yaml", "--output", "$HPCDD_TEST/o", "--dry-run", "--machine", "~/m"]
    order, options = command.request(arguments), parse("study", command.declare, arguments).given
    assert (order.output, options.machine) == (Path(study).parent / "o", Path.home() / "m")
    for arguments in (["$HPCDD_NONE.yaml"], [study, "--output", "$HPCDD_NONE"]):
        with pytest.raises(UserError, match="'HPCDD_NONE' is not set"):
            command.request(arguments)


def test_every_mistake_is_reported_once_with_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("config:\n  local: {epoch: 1}\nmatrix:\n  seed: [0, -1]\n  local.batch_size: [8, 1]\n")
    with pytest.raises(UserError) as caught:
        ordered(str(path), "--seed", "3", "--zyx", "1")
    assert str(caught.value).splitlines() == [
        "command line: --zyx is unknown; see `hpcdd study --help`",
        "command line: --seed has no effect, because the study's matrix sets it in every run",
        f"{path}:2: local.epoch is unknown; did you mean local.epochs?",
        f"{path}:5: local.batch_size is 1: input should be greater than or equal to 2 "
        "(run seed=0,batch_size=1 and seed=-1,batch_size=1)",
        f"{path}:4: seed is -1: input should be greater than or equal to 0 "
        "(run seed=-1,batch_size=8 and seed=-1,batch_size=1)",
    ]


def test_a_dry_run_counts_what_is_shared_once(study: str) -> None:
    out = io.StringIO()
    dry_run.run(ordered(study, "--data.subset", "256", "--only", "*seed=0"), None, out)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]
    # Two epochs of two steps for each CNN, ten of two for the DNN, and five of two of the coherent model.
    assert [(row[0], row[1], row[2], row[4], row[7]) for row in rows] == [
        ("grid=2x2,dropout_scale=1.0,seed=0", "4", "4", str(4 * 4 + 20 + 10), ""),
        ("grid=2x2,dropout_scale=0.5,seed=0", "4", "4", str(20 + 10), "local"),
        ("grid=1x2,dropout_scale=1.0,seed=0", "2", "2", str(2 * 4 + 20 + 10), ""),
        ("grid=1x2,dropout_scale=0.5,seed=0", "2", "2", str(20 + 10), "local"),
    ]
    assert f"{46 + 30 + 38 + 30} training steps in total" in out.getvalue()


def test_a_dry_run_gives_hours_with_a_machine(study: str, tmp_path: Path) -> None:
    path, out = tmp_path / "machine.json", io.StringIO()
    path.write_text(machine().model_dump_json())
    dry_run.run(ordered(study, "--data.subset", "256", "--only", "*1x2*seed=0"), path, out)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]
    first, second = (float(row[7]) for row in rows)
    assert first > second > 0  # without the local phase
    last = re.search(r"^(\S+) hours of all ranks together; the longest run takes (\S+) s$", out.getvalue(), re.M)
    assert last is not None
    assert float(last[2]) == first
    assert float(last[1]) == pytest.approx(2 * (first + second) / 3600, abs=0.006)


def test_a_dry_run_plans_bf16_where_the_machine_has_it(study: str, tmp_path: Path) -> None:
    steps = [step(1e-3, kind="cnn", precision="bf16"), *(step(1e-3, kind=kind) for kind in ("evaluation", "dnn"))]
    path, asked = tmp_path / "machine.json", ["--data.subset", "256", "--coherent.starts", "[]", "--only", "*1x2*1.0*0"]
    path.write_text(machine(steps=steps).model_dump_json())
    out = io.StringIO()
    dry_run.run(ordered(study, "--local.precision", "auto", *asked), path, out)
    assert "hours" in out.getvalue()
    with pytest.raises(UserError, match="fp32"):
        dry_run.run(ordered(study, *asked), path, io.StringIO())


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("{expect: [dnn foo average]}", r":11: variants\.wrong\.expect: 'dnn foo average'"),
        ("{matrix: {seed: null}}", r":11: variants\.wrong\.matrix"),
    ],
)
def test_what_a_variant_makes_wrong_is_reported_with_its_line(variant: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"""
title: A study
config:
  model: {{name: vgg1}}
matrix:
  seed: [0, 1]
expect: [dnn > average]
variants:
  right:
    ranks: 2
  wrong: {variant}
""")
    assert ordered(str(path), "--variant", "right").ranks == 2
    with pytest.raises(UserError, match=message):
        ordered(str(path), "--variant", "wrong")


def test_runs_of_another_study_are_not_resumed(study: str, tmp_path: Path) -> None:
    first = ordered(study, "--output", str(tmp_path / "out"))
    directory = StudyDirectory(first.output)
    directory.begin(first)
    directory.begin(first)  # it is resumed
    assert {directory.condition(run) for run in first.runs} == {"not begun"}
    run = first.runs[0]
    directory.fail(run.id, "a reason", 3)
    assert (directory.condition(run), directory.failure(run.id)) == ("failed", "a reason")
    directory.clear(run.id)
    assert directory.condition(run) == "not begun"
    folder = directory.run(run.id)
    folder.path.mkdir(parents=True)
    content = run.config.model_dump(mode="json", exclude={"output"})
    folder.write_record({"format": 1, "hpcdd": "0", "run": "r", "config": content, "blocks": 16, "complete": False})
    assert directory.condition(run) == "unfinished"
    with pytest.raises(UserError, match=r"which holds the study a-trial; name another --output"):
        directory.begin(ordered(study, "--output", str(tmp_path / "out"), "--variant", "quick"))
    changed = ordered(study, "--output", str(tmp_path / "out"), "--local.batch_size", "32")
    with pytest.raises(
        UserError,
        match=r"local.batch_size was 128 in .* and is 32 now; resume a run with "
        "the settings it",
    ):
        directory.begin(changed)


def test_a_dry_run_runs_no_code_of_the_study(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("foreign_of_a_study.py").write_text("open('ran', 'w').close()\n")
    of_study = ordered(
        study, "--model.name", "foreign_of_a_study:make", "--coherent.starts", "[]", "--only", "*grid=2x2*1.0*"
    )
    with pytest.raises(UserError, match="--own foreign_of_a_study:make"):
        dry_run.run(of_study, None)
    assert not Path("ran").exists()
    with pytest.raises(UserError, match="no 'make'"):
        dry_run.run(of_study, None, user_factory="foreign_of_a_study:make")
    assert Path("ran").exists()

"""The messages in docs/explanation/costs.md: its formulas, read from the page, and what runs count."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from hpcdd.config.loading import from_yaml
from hpcdd.config.schema import Config
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.writing import write_dataset
from hpcdd.decomposition.rank_layout import assign
from hpcdd.phases.attribution import ATTRIBUTION_SPLIT, attribution_rows
from hpcdd.plan import fake_networks

from ..conftest import make_split
from ..launchers import find
from ..ranks.test_resume import Job, run_chain
from .pages import page

RANKS = 2
Traffic = tuple[int, int, int]
"""Calls, and the least and the most bytes."""


def section() -> str:
    return page("docs/explanation/costs.md").partition("## Messages\n")[2].partition("\n## ")[0]


def rows() -> list[list[str]]:
    """Cells of the section's tables."""
    lines = [line for line in section().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def formula(cell: str, letters: dict[str, int]) -> int:
    """The value of `2 w (b H + 1)` in a cell, where a space between factors means multiplication."""
    (text,) = re.findall(r"`([^`]+)`", cell)
    value = eval(re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", text), {"__builtins__": {}, "ceil": math.ceil}, letters)
    assert isinstance(value, int)
    return value


def messages(phase: str, what: str, letters: dict[str, int]) -> Traffic:
    """One row of the table, for letters that are known."""
    matches = [row for row in rows() if len(row) == 5 and f"`{phase}`" in row[0] and row[1].startswith(what)]
    ((_, _, _, calls, size),) = matches
    most = formula(size, letters)
    return formula(calls, letters), 1 if size.startswith("at most") else most, most


def documented(config: Config, problem: Problem, ranks: int) -> dict[str, Traffic]:
    """What the page says of a run on at most S ranks."""
    traffic: dict[str, list[Traffic]] = {}
    subdomains, splits = len(problem.decomposition), problem.samples
    common = {
        "S": subdomains,
        "N": ranks,
        "K": problem.info.num_classes,
        "F": problem.feature_widths(config.aggregation.features)[0],
        "s": len(assign(subdomains, ranks)[0][0]),
        "w": 8 if config.reduction == "ordered" else 4,
        "v": splits.get("validation", 0),
        "a": len(attribution_rows(config, splits[ATTRIBUTION_SPLIT], subdomains, problem.info.num_classes)),
        "P": sum(p.numel() for p in fake_networks.dnn(config, problem).parameters()),
    }

    def count(phase: str, what: str, times: int = 1, counted: str = "", **more: int) -> None:
        calls, least, most = messages(phase, what, common | more)
        traffic.setdefault(counted or phase, []).append((times * calls, times * least, times * most))

    def model(settings: Config, phase: str, *, hidden: int, trained_by_all_ranks: bool, voting: bool) -> None:
        training = settings.aggregation if phase == "dnn" else settings.coherent
        for m in splits.values():
            count("evaluation", "the sum over the subdomains", m=m, H=hidden)
            if voting:
                count("evaluation", "the scores", m=m)
                count("evaluation", "the accuracies", m=m)
        count("examination", "the sum over", H=hidden)
        count("examination", "the two forms")
        if trained_by_all_ranks:
            b, train = training.batch_of(splits["train"]), splits["train"]
            steps = training.epochs * training.steps_per_epoch(train)
            what = "nothing; with" if phase == "dnn" else "the sum over"
            count(phase, what, steps, b=b, H=hidden)
            count("evaluation", "the same in a training", training.epochs, e=min(b, 512), H=hidden)
            count("evaluation", "what the ranks agree on", training.epochs)

    count("local", "nothing")
    count("examination", "the scores")
    count("examination", "the predictions")
    distributed = config.aggregation.placement == "distributed"
    if not distributed:
        count("evaluation", "the DNN, from root")
        for m in splits.values():
            count("gather", "the outputs", m=m)
        traffic["dnn"] = [(0, 0, 0)]
    model(config, "dnn", hidden=config.aggregation.hidden[0], trained_by_all_ranks=distributed, voting=True)
    hidden = [*config.coherent_dnn.hidden, problem.info.num_classes][0]
    for start in config.coherent.starts:
        voting = config.coherent_features != "penultimate"
        model(config, f"coherent_{start}", hidden=hidden, trained_by_all_ranks=True, voting=voting)
    return {
        phase: (sum(c for c, _, _ in of_phase), sum(a for _, a, _ in of_phase), sum(z for _, _, z in of_phase))
        for phase, of_phase in traffic.items()
    }


FORMS = {
    "root, ordered": "--coherent.starts transfer,scratch",
    "distributed, fast": "--aggregation.placement distributed --reduction fast --coherent.features penultimate "
    "--coherent.dnn-start pool",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run in each form, in one job: three subdomains on two ranks, and splits of more than one chunk of 1,024."""
    folder = tmp_path_factory.mktemp("costs")
    splits = {"train": make_split(1300), "test": make_split(1100, seed=1)}
    write_dataset(folder / "small.h5", splits, name="small", class_names=["two", "three", "four"])
    content = {
        "data": {"file": str(folder / "small.h5"), "validation_fraction": 0.1},
        "decomposition": {"grid": [1, 3]},
        "model": {"name": "vgg1", "width": 4},
        "local": {"epochs": 1, "batch_size": 300},
        "aggregation": {"epochs": 2, "batch_size": 120, "hidden": [16, 8]},
        "coherent": {"epochs": 2, "batch_size": 100},
        "progress": "off",
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    jobs: list[Job] = [
        (RANKS, ["train", "small.yaml", "--output", str(number), *options.split()], None)
        for number, options in enumerate(FORMS.values())
    ]
    codes, errors = run_chain(next(iter(find().values())), folder, jobs, ranks=RANKS)
    assert codes == [0] * len(FORMS), errors
    return {form: folder / str(number) for number, form in enumerate(FORMS)}


@pytest.mark.parametrize("form", FORMS)
def test_runs_count_what_the_page_says(runs: dict[str, Path], form: str) -> None:
    run = runs[form]
    counted = json.loads((run / "results.json").read_text())["communication"]
    config = from_yaml((run / "config.yaml").read_text(), "config.yaml")
    expected = documented(config, build_problem(config), RANKS)
    sending = {phase for phase, traffic in counted.items() if traffic["bytes"]}
    named = {"local", "gather", "dnn", "coherent_transfer", "coherent_scratch", "evaluation", "examination"}
    assert sending & named <= set(expected)
    assert ("gather" in counted) == ("gather" in expected) == (form == "root, ordered")
    for phase, (calls, least, most) in expected.items():
        assert counted[phase]["calls"] == calls, phase
        assert least <= counted[phase]["bytes"] <= most, phase


def test_the_quick_starts_figures_follow_from_the_formulas() -> None:
    config = Config.load()
    expected = documented(config, build_problem(config), 4)
    stated = {row[0].strip("`"): [int(cell.replace(",", "")) for cell in row[1:]] for row in rows() if len(row) == 3}
    assert set(stated) == {"gather", "coherent_transfer", "evaluation", "examination"}
    for phase, (calls, size) in stated.items():
        assert calls == expected[phase][0], phase
        assert expected[phase][1] <= size <= expected[phase][2], phase

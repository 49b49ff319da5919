"""The packaged studies: every run's configuration is valid, and its problem can be built on data of its shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcdd.cli import study
from hpcdd.data.writing import Split, write_dataset
from hpcdd.studies.hypotheses import Hypothesis
from hpcdd.studies.planned_runs import plan_runs
from hpcdd.studies.study_request import StudyRequest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
PUBLISHED = [path for path in FILES if path.stem != "quick"]
SHAPES = {
    "cifar10.h5": ((3, 32, 32), 10),
    "flowers.h5": ((3, 180, 180), 5),
    "faces.h5": ((1, 192, 168), 38),
    "ct.h5": ((1, 64, 128, 128), 2),
    "phantom.h5": ((1, 32, 32, 32), 2),
}


def orders(path: Path, *options: str) -> list[StudyRequest]:
    """A study, and each of its variants."""
    plain = study.request([str(path), *options])
    variants = plain.description.variants
    return [plain, *(study.request([str(path), *options, "--variant", name]) for name in variants)]


def test_the_studies_that_the_papers_have_are_there() -> None:
    assert [path.stem for path in FILES] == [
        "quick",
        "strategies_cifar10",
        "strategies_ct",
        "strategies_faces",
        "strategies_flowers",
        "transfer",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_is_valid_and_can_show_what_is_expected(path: Path) -> None:
    for wanted in orders(path):
        columns = set(wanted.description.table.columns or ())
        assert wanted.description.expect
        for hypothesis in map(Hypothesis.parse, wanted.description.expect):
            assert {hypothesis.left, hypothesis.right} <= columns, "what is compared stands in the table"
        for run in wanted.runs:
            assert run.config.baseline.enabled == ("global" in columns)
            for start in ("transfer", "scratch"):
                assert (start in run.config.coherent.starts) == (f"coherent_{start}" in columns)
        seeds = {run.config.seed for run in wanted.runs}
        assert len(seeds) >= 3
        assert len(wanted.runs) % len(seeds) == 0


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_as_published_and_quick(path: Path) -> None:
    published, quick = orders(path)
    assert quick.variant == "quick"
    assert {run.config.local.epochs for run in published.runs} == {150}
    assert {run.config.aggregation.features for run in published.runs} == {"probabilities"}
    assert {run.config.decomposition.grid[-2:] for run in published.runs if run.config.decomposition.grid} == {
        (2, 2),
        (4, 4),
    }
    assert max(run.config.local.epochs for run in quick.runs) <= 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_has_the_launch_lines(path: Path) -> None:
    text = path.read_text()
    head = [line for line in text[: text.index("title:")].splitlines() if "hpcdd study" in line]
    assert len(head) >= 1 + (path.stem != "quick")
    assert all(f"configs/studies/{path.name}" in line for line in head)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_problems_can_be_built(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes fit into the images, and local CNNs can be as small as they have to be."""
    monkeypatch.chdir(tmp_path)
    for wanted in orders(path, "--data.subset", "null"):  # of the few images that are made here
        name = wanted.runs[0].config.data.file
        shape, classes = SHAPES[name]
        if not Path(name).exists():
            images = np.zeros((2 * classes, *shape), np.uint8)
            images[classes:] = 1
            some = Split.from_array(images, np.arange(2 * classes) % classes)
            write_dataset(Path(name), {"train": some, "test": some}, name=name, class_names=[*map(str, range(classes))])
        entries = [entry for entry, _ in plan_runs(wanted.runs, wanted.ranks, None)]
        assert {entry.subdomains for entry in entries} == {
            int(np.prod(entry.run.config.decomposition.grid or ())) for entry in entries
        }
        if wanted.ranks is None:
            assert all(entry.ranks == entry.subdomains for entry in entries)

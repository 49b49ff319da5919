"""`bench headline`: curves as a user gets them, and what is read off them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcdd.artifacts import headline_file
from hpcdd.artifacts.documents import write_document
from hpcdd.artifacts.headline_file import CurvePoint, Headline
from hpcdd.bench import headline
from hpcdd.bench.stopwatch import Stopwatch, slowest
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.mpi import communicator

from ..launchers import Launcher
from ..waiting import Clock
from .headlines import made

EPOCHS = {"global": 3, "dnn": 4, "coherent_transfer": 2}


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    return {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2], "coarse": True},
        "augmentation": {"flip": [1], "translate": 1},
        "model": {"name": "vgg2", "width": 8, "local_width": 8},
        "local": {"epochs": 2, "batch_size": 30},
        "aggregation": {"epochs": EPOCHS["dnn"], "batch_size": 30, "hidden": [16]},
        "coherent": {"epochs": EPOCHS["coherent_transfer"], "batch_size": 30, "features": "penultimate"},
        "baseline": {"epochs": EPOCHS["global"], "batch_size": 30},
    }


def test_times_are_read_off_the_curves() -> None:
    measured = made(**{"global": [0.6, 0.72, 0.81, 0.79], "dnn": [0.5, 0.71], "coherent_transfer": [0.69, 0.8]})
    assert measured.thresholds == [0.7, 0.75, 0.8]
    assert measured.times() == [
        ["0.70", "20.0", "20.0", "20.0", "1.00"],
        ["0.75", "30.0", "-", "40.0", "0.75"],
        ["0.80", "30.0", "-", "40.0", "0.75"],
    ]
    assert measured.ends()[0] == ["global CNN, DDP", "4", "40.0", "0.7900"]
    assert made(**{"global": [0.69], "dnn": [0.1], "coherent_transfer": [0.2]}).times() == []
    seven_of_ten = made(**{"global": [0.699999988], "dnn": [0.1], "coherent_transfer": [0.2]})
    assert seven_of_ten.times() == [["0.70", "10.0", "-", "-", "-"]]
    only = made(**{"global": [0.2], "dnn": [0.1], "coherent_transfer": [0.7]})
    assert only.times() == [["0.70", "-", "-", "20.0", "-"]]


def test_the_clock_stops_for_evaluations_alone(clock: Clock) -> None:
    world = communicator.world()
    watch = Stopwatch(world, "cpu")
    with watch.stopped():
        clock.wait(2)
    assert watch.seconds == 0
    clock.wait(0.5)
    points: list[CurvePoint] = []
    hooks = watch.hooks(points)
    with hooks.evaluation():
        clock.wait(2)
    watch.synchronize()
    assert watch.seconds == pytest.approx(0.5)
    assert slowest(world, [CurvePoint(epoch=1, seconds=2, accuracy=0.5)]) == [
        CurvePoint(epoch=1, seconds=2, accuracy=0.5)
    ]


@pytest.mark.bench
def test_curves_of_all_contenders(content: dict[str, Any], mpi: Launcher, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    done = mpi.hpcdd(2, ["bench", "headline", "c.yaml", "--output", "out"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written = Headline.model_validate_json((tmp_path / "out" / headline_file.NAME).read_bytes())
    assert {name: [point.epoch for point in points] for name, points in written.curves.items()} == {
        name: list(range(1, epochs + 1)) for name, epochs in EPOCHS.items()
    }
    for contender in written.curves:
        seconds = [point.seconds for point in written.full_curve(contender)]
        assert seconds[0] > 0
        assert seconds == sorted(set(seconds))
    # By guessing 0.33; a test split of noise with stripes is learnt within an epoch or two.
    assert max(point.accuracy for point in written.curves["global"]) > 0.6
    assert written.curves["coherent_transfer"][-1].accuracy > 0.8
    assert [subdomains for *_, subdomains in written.places] == [1, 2]
    assert written.config["augmentation"].items() >= {"flip": [1], "translate": 1}.items()
    for name in ("local CNNs and DNN", "coherent model, by transfer", "global CNN, DDP"):
        assert name in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {headline_file.NAME, "report.html", "figures"}
    assert {path.name for path in (tmp_path / "out/figures").iterdir()} == {"headline.png", "headline.svg"}


def test_a_result_is_not_overwritten(content: dict[str, Any], tmp_path: Path) -> None:
    write_document(tmp_path / headline_file.NAME, made(**{"global": [0.5], "dnn": [0.5], "coherent_transfer": [0.5]}))
    with pytest.raises(UserError, match=f"{tmp_path} already holds headline.json, which is not overwritten"):
        headline._begin(Config.model_validate(content), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregation": {"early_stopping": 2}}, "aggregation.early_stopping would use the test split"),
        ({"baseline": {"early_stopping": 2}}, "baseline.early_stopping would use the test split"),
        (
            {"coherent": {"starts": ["scratch"]}},
            r"coherent.starts is \['scratch'\], but this benchmark "
            "measures the start by transfer",
        ),
        (
            {"aggregation": {"placement": "distributed"}},
            "aggregation.placement is 'distributed', but in this benchmark root trains",
        ),
    ],
    ids=str,
)
def test_what_it_cannot_measure_is_refused(
    change: dict[str, Any], message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    config = Config.model_validate({**content, **change})
    with pytest.raises(UserError, match=f"^bench headline: {message}"):
        headline._begin(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()

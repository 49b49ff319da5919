"""Contenders of the benchmarks are treated identically."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcdd.artifacts.headline_file import Headline
from hpcdd.bench import coherent_step, contenders, headline
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.mpi import communicator
from hpcdd.training import precision as precision_module

SECONDS = 0.5


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    return {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2]},
        "model": {"name": "vgg1", "width": 8, "local_width": 4},
        "local": {"epochs": 1, "batch_size": 64},
        "aggregation": {"epochs": 1, "batch_size": 64, "hidden": [8]},
        "coherent": {"epochs": 1, "batch_size": 64},
        "baseline": {"epochs": 1, "batch_size": 64},
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ddp_has_the_precision_of_the_others(
    content: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = set()
    forward = torch.nn.parallel.DistributedDataParallel.forward

    def spied(self: Any, *inputs: Any) -> Any:
        seen.add(torch.is_autocast_enabled("cpu"))
        return forward(self, *inputs)

    monkeypatch.setattr(torch.nn.parallel.DistributedDataParallel, "forward", spied)
    monkeypatch.setattr(precision_module, "check_precision", lambda *_: None)  # this processor may have to imitate bf16
    content["coherent"]["precision"] = precision
    coherent_step.run(communicator.world(), Config.model_validate(content), [8], rounds=1, steps=1)
    assert seen == {precision == "bf16"}
    assert f"batch 64, {precision}, 1 rank" in capsys.readouterr().out


def test_a_precision_that_the_device_lacks_is_refused(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(section: str, *_: str) -> None:
        raise UserError(f"{section}: none here")

    monkeypatch.setattr(precision_module, "check_precision", lacking)
    with pytest.raises(UserError, match="coherent: none here"):
        coherent_step.run(communicator.world(), Config.model_validate(content), [8], rounds=1, steps=1)


@pytest.mark.parametrize(
    ("maker", "contender"), [("create_global_cnn", "global"), ("train_local_cnns", "dnn")], ids=["DDP", "hpcdd"]
)
def test_the_making_of_networks_counts(
    maker: str, contender: str, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = getattr(contenders, maker)

    def slowly(*arguments: Any, **more: Any) -> Any:
        time.sleep(SECONDS)
        return make(*arguments, **more)

    monkeypatch.setattr(contenders, maker, slowly)
    headline.run(communicator.world(), Config.model_validate(content), tmp_path)
    curves = Headline.model_validate_json((tmp_path / "headline.json").read_bytes()).curves
    assert curves[contender][0].seconds > SECONDS  # type: ignore[index]

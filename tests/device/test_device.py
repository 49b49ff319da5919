"""What has to be true on a GPU, and is on a processor: run by ``hpcdd bench device`` where one is to be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core.errors import StopRequest
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.sample_loading import Where
from hpcdd.decomposition.rank_layout import RankPlacement
from hpcdd.parallel.host_staging import Staging
from hpcdd.phases.local import LocalResult, train_local_cnns
from hpcdd.training.precision import native_bf16
from hpcdd.training.status import Hooks, Status

from ..launchers import find
from ..ranks.test_resume import Job, run_chain
from ..training.test_trainer import stop_at

pytestmark = pytest.mark.device
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
KIND = DEVICE.partition(":")[0]


def posed(tiny: Path, **more: Any) -> tuple[Config, Problem]:
    content = {
        "data": {"file": str(tiny), "validation_fraction": 0.2},
        "augmentation": {"flip": [1], "translate": 1},
        "model": {"name": "vgg1", "width": 8},
        "local": {"epochs": 3, "batch_size": 50, "learning_rate": 1e-3, **more.pop("local", {})},
    }
    config = Config.model_validate({**content, **more})
    return config, build_problem(config)


def trained(
    config: Config, problem: Problem, hooks: Hooks | None = None, where: Where = "device"
) -> dict[int, LocalResult]:
    placement = RankPlacement(0, "here", DEVICE, DEVICE, 1, (0, 1, 2, 3))
    samples = problem.read(BoxReader(problem.info.path), placement.subdomains, DEVICE, where)
    width = problem.widths.local_width
    return train_local_cnns(config, placement, samples, problem.info.num_classes, width, hooks or Hooks())


def losses(config: Config, problem: Problem, where: Where = "device") -> dict[tuple[int, int], float]:
    """By subdomain and epoch."""
    statuses: list[Status] = []
    trained(config, problem, Hooks(epoch=statuses.append), where)
    return {(status.subdomain, status.epoch): status.loss for status in statuses}


def test_messages_go_through_pinned_memory_and_back() -> None:
    device, staging = torch.device(DEVICE), Staging(direct=False)
    values = torch.arange(1000, dtype=torch.int64, device=device)
    mine, total = staging.pair(len(values), values.dtype, device)
    mine.copy_(values, non_blocking=True)
    staging.ready(device)
    assert torch.equal(torch.from_numpy(staging.for_mpi(mine)), torch.arange(1000))
    total.copy_(mine)
    assert torch.equal(total.to(device), values)
    assert mine.is_pinned() == (KIND == "cuda")


@pytest.mark.parametrize("family", ["vgg1", "fast2"])
def test_cnns_together_become_what_each_becomes_alone(tiny: Path, family: str) -> None:
    """On a GPU in recorded steps, compared with steps that are not."""
    model = {"name": family, "width": 8}
    together, alone = (losses(*posed(tiny, batched=setting, model=model)) for setting in (True, False))
    assert together.keys() == alone.keys()
    for subdomain_and_epoch, loss in together.items():
        assert loss == pytest.approx(alone[subdomain_and_epoch], rel=2e-3), subdomain_and_epoch


@pytest.mark.parametrize("batched", [True, False])
def test_a_training_is_repeated(tiny: Path, batched: bool) -> None:
    """Bit by bit on a processor; kernels of a GPU may add in another order."""
    config, problem = posed(tiny, batched=batched)
    one, other = losses(config, problem), losses(config, problem)
    assert other == (one if KIND == "cpu" else pytest.approx(one, rel=1e-3))


def test_samples_in_the_hosts_memory_give_the_same(tiny: Path) -> None:
    config, problem = posed(tiny)
    on_device, in_memory, streamed = (losses(config, problem, where) for where in ("device", "memory", "stream"))
    tolerance = {"rel": 0.0} if KIND == "cpu" else {"rel": 1e-3}
    assert in_memory == pytest.approx(on_device, **tolerance)
    assert streamed == pytest.approx(on_device, **tolerance)


@pytest.mark.skipif(not native_bf16(DEVICE), reason="the device has no instructions for bfloat16")
def test_bf16_is_near_to_fp32(tiny: Path) -> None:
    half, full = (losses(*posed(tiny, local={"precision": precision})) for precision in ("bf16", "fp32"))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


def test_a_stop_is_heard(tiny: Path) -> None:
    config, problem = posed(tiny)
    with pytest.raises(StopRequest):
        trained(config, problem, Hooks(step=stop_at(7)))


def test_ranks_share_the_device_and_a_run_is_resumed(tiny: Path, tmp_path: Path) -> None:
    """Two ranks on one device, stopped in the coherent phase, end where one rank does."""
    arguments: list[str | Path] = [
        *("train", "--data.file", tiny, "--data.validation_fraction", "0.2", "--device", KIND, "--progress", "off"),
        *("--model.name", "vgg1", "--model.width", "8", "--run.report", "false", "--local.epochs", "2"),
        *("--coherent.epochs", "2", "--coherent.batch_size", "50", "--local.batch_size", "50", "--output"),
    ]
    jobs: list[Job] = [
        (1, [*arguments, "one"], None),
        (2, [*arguments, "two"], ("coherent", 0, "SIGTERM@5")),
        (2, [*arguments, "two"], None),
    ]
    codes, errors = run_chain(next(iter(find().values())), tmp_path, jobs, ranks=2)
    assert codes == [0, 75, 0], errors
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text())["accuracy"]["test"] for name in ("one", "two")
    )
    for name in ("average", "dnn", "coherent_transfer"):
        assert two[name] == (one[name] if KIND == "cpu" else pytest.approx(one[name], abs=0.05))

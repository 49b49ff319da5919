"""What a point of a scaling study measures on one rank."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from torch import nn

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.mpi import communicator, launcher
from hpcdd.mpi.communicator import Comm
from hpcdd.studies.scaling_point import ScalingPoint
from hpcdd.training import precision


def point(comm: Comm, tiny: Path, asked: str, stack: contextlib.ExitStack, name: str = "vgg2") -> ScalingPoint:
    tree = {
        "data": {"file": str(tiny)},
        "device": "cpu",
        "decomposition": {"grid": [1, comm.size]},
        "model": {"name": name, "local_width": 8},
        "local": {"precision": asked, "batch_size": 50},
    }
    config = Config.model_validate(tree)
    problem = comm.on_root(lambda: build_problem(config))
    return ScalingPoint(comm, config, ["local"], problem, BoxReader(tiny), stack)


@pytest.mark.parametrize("native", [False, True])
def test_steps_are_in_the_precision_of_a_run(native: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda _: native)
    monkeypatch.setattr(precision, "_stores_bf16", lambda: native)
    comm = communicator.world()
    with contextlib.ExitStack() as stack:
        assert point(comm, tiny, "auto", stack).config.local.precision == ("bf16" if native else "fp32")
        if not native:
            with pytest.raises(UserError, match="does not compute in bfloat16"):
                point(comm, tiny, "bf16", stack)


def make_on_root(*, input_shape: tuple[int, ...], num_classes: int, width: int) -> nn.Module:
    """A user's own CNN, which can be made on root only."""
    if launcher.from_environment().rank != 0:
        raise OSError("no such weights")
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


@pytest.mark.ranks(2)
def test_a_cnn_that_one_rank_can_not_make_is_refused_on_all(comm: Comm, tiny: Path) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(UserError, match=r"no such weights.*\(rank 1\)"):
        point(comm, tiny, "fp32", stack, f"{__name__}:make_on_root")

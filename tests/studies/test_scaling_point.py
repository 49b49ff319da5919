"""What a point of a scaling study measures on one rank."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.mpi import communicator
from hpcdd.studies.scaling_point import ScalingPoint
from hpcdd.training import precision


def point(tiny: Path, asked: str, stack: contextlib.ExitStack) -> ScalingPoint:
    tree = {
        "data": {"file": str(tiny)},
        "device": "cpu",
        "decomposition": {"grid": [1, 1]},
        "model": {"name": "vgg2", "width": 8},
        "local": {"precision": asked, "batch_size": 50},
    }
    config = Config.model_validate(tree)
    return ScalingPoint(communicator.world(), config, ["local"], build_problem(config), BoxReader(tiny), stack)


@pytest.mark.parametrize("native", [False, True])
def test_steps_are_in_the_precision_of_a_run(native: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda _: native)
    monkeypatch.setattr(precision, "_stores_bf16", lambda: native)
    with contextlib.ExitStack() as stack:
        assert point(tiny, "auto", stack).config.local.precision == ("bf16" if native else "fp32")
        if not native:
            with pytest.raises(UserError, match="does not compute in bfloat16"):
                point(tiny, "bf16", stack)

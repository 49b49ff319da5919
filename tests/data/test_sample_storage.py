"""Where samples are kept: by budget, agreed on by all ranks, and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.core import environment
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.sample_storage import Choice, Storages, bytes_needed, choose, decide
from hpcdd.data.samples import Samples
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import communicator

MIB = 1 << 20


@pytest.mark.parametrize(
    ("setting", "needed", "host", "device", "where"),
    [
        ("auto", 10, 10, None, "memory"),
        ("auto", 11, 10, None, "stream"),
        ("auto", 10, 5, 10, "device"),
        ("auto", 11, 11, 10, "memory"),
        ("auto", 12, 11, 10, "stream"),
        ("stream", 1, 10, 10, "stream"),
        ("memory", 99, 10, None, "memory"),
        ("device", 99, 10, 10, "device"),
    ],
)
def test_the_first_for_which_the_budget_is_enough(
    setting: str, needed: int, host: int, device: int | None, where: str
) -> None:
    assert choose(setting, needed, host, device) == where


def test_what_was_chosen_is_reported() -> None:
    fits, large = Choice("memory", 3 * MIB, 4 * MIB, None), Choice("stream", 6 * MIB, 4 * MIB, None)
    equal = Storages("auto", (fits, fits, None))
    assert [equal.of(rank) for rank in range(3)] == ["memory", "memory", "device"]
    assert equal.lines() == ["samples of all ranks: in the host's memory; they are 3.0 MiB of a budget of 4.0 MiB"]
    mixed = Storages("auto", (large, fits, None))
    assert [mixed.of(rank) for rank in range(2)] == ["stream", "memory"]
    assert mixed.stream
    assert not equal.stream
    assert mixed.lines() == [
        "samples of rank 1: in the host's memory; they are 3.0 MiB of a budget of 4.0 MiB",
        "samples of rank 0: streamed from the file; they are 6.0 MiB of a budget of 4.0 MiB",
    ]
    gpu = Storages("device", (Choice("device", MIB, MIB, MIB),))
    assert gpu.lines() == ["samples of all ranks: on the device; they are 1.0 MiB, as set by data.storage"]


@pytest.mark.parametrize("augmentation", [{}, {"flip": [1], "translate": 2}], ids=["plain", "augmented"])
def test_the_bytes_are_those_of_what_is_read(tiny: Path, augmentation: dict[str, object]) -> None:
    sections = {"data": {"file": str(tiny), "validation_fraction": 0.2}, "model": {"name": "vgg1", "local_width": 2}}
    config = Config.model_validate(
        {**sections, "decomposition": {"grid": [2, 3], "coarse": True}, "augmentation": augmentation}
    )
    problem = build_problem(config)

    def held(samples: dict[str, Samples]) -> int:
        tensors = {id(t): t for part in samples.values() for t in (part.inputs, *getattr(part, "regions", ()))}
        return sum(tensor.nbytes for tensor in tensors.values())

    for s, samples in problem.read(BoxReader(tiny), range(7), "cpu").items():
        assert held(samples) == problem.bytes_of([s]) > 0  # type: ignore[arg-type]
    assert held(problem.read_whole(BoxReader(tiny), "cpu")) == problem.bytes_of_whole()  # type: ignore[arg-type]
    needed = problem.bytes_of([1, 2])
    assert bytes_needed(config, problem, [1, 2]) == needed
    baseline = config.model_copy(update={"baseline": config.baseline.model_copy(update={"enabled": True})})
    assert bytes_needed(baseline, problem, [1, 2]) == needed + problem.bytes_of_whole()
    by_data = config.model_copy(update={"coherent": config.coherent.model_copy(update={"parallelism": "data"})})
    assert bytes_needed(by_data, problem, [1, 2]) == problem.bytes_of(range(7))


def test_the_choice_of_one_rank(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = communicator.world()

    def chosen(free: int, **data: object) -> Storages:
        config = Config.model_validate(
            {
                "data": {"file": str(tiny), **data},
                "model": {"name": "vgg1"},
                "aggregation": {"placement": "distributed"},
            }
        )
        problem = build_problem(config)
        with monkeypatch.context() as patched:
            patched.setattr(environment, "available_memory", lambda: free)
            return decide(world, config, problem, rank_layout.build(world, 4, "cpu"))

    size = 390 * 144
    assert chosen(2 * size).of(0) == "memory"
    assert chosen(2 * size - 1).of(0) == "stream"
    assert chosen(0, memory=1).of(0) == "memory"
    assert chosen(size, storage="memory").of(0) == "memory"
    assert chosen(size, storage="device").of(0) == "device"
    for storage in ("memory", "device"):
        with pytest.raises(UserError, match=rf"data\.storage is '{storage}', but the samples take 0\.1 MiB, and 0\.0"):
            chosen(size - 50_000, storage=storage)
    assert chosen(0, storage="stream").of(0) == "stream"

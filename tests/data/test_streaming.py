"""Samples that stay in the file: the same batches as from memory, whatever ends an epoch, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data import reading, sample_order
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import AnySamples, AugmentationSeed, SideBySide
from hpcdd.data.streaming import StreamedSamples
from hpcdd.data.writing import Split, write_dataset

N = 300
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "plain": ("uint8", (1, 8, 6), {}),
    "coarse, validation": ("int16", (3, 8, 6), {"decomposition": {"coarse": True}, "validation": 0.2}),
    "augmented": (
        "uint16",
        (2, 8, 6),
        {"augmentation": {"flip": [1], "translate": 1}, "decomposition": {"coarse": True}},
    ),
    "float": ("float32", (1, 8, 6), {"validation": 0.1}),
    "3D": ("uint8", (1, 4, 6, 6), {"augmentation": {"flip": [0, 2]}, "decomposition": {"grid": [1, 2, 1]}}),
}


def make_problem(folder: Path, dtype: str, shape: tuple[int, ...], sections: dict[str, Any], n: int = N) -> Problem:
    images = (np.random.default_rng(0).normal(size=(n, *shape)) * 20 + 60).astype(dtype)
    split = Split.from_array(images, np.arange(n) % 2)
    write_dataset(folder / "d.h5", {"train": split, "test": split}, name="d", class_names="ab", compression=1)
    sections = {"model": {"name": "vgg1", "local_width": 2}, "coherent": {"starts": []}, **sections}
    validation = sections.pop("validation", 0.0)
    return build_problem(
        Config(**{"data": {"file": str(folder / "d.h5"), "validation_fraction": validation}, **sections})
    )


@pytest.fixture(params=CASES, ids=str)
def problem(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """Windows of some sixty samples."""
    dtype, shape, sections = CASES[request.param]
    problem = make_problem(tmp_path, dtype, shape, dict(sections))
    regions = len(problem.augmentation.flips) if problem.augmentation else 1
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 60 * regions * int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return problem


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        strides = zip(one.shape, one.stride(), other.stride(), strict=True)
        return torch.equal(one, other) and all(a == b for n, a, b in strides if n > 1)
    return all(same(a, b) for a, b in zip(one, other, strict=True))


def both(problem: Problem) -> Iterator[tuple[str, AnySamples, AnySamples]]:
    """By split what is streamed and what is in memory: each subdomain, all side by side, and whole images."""
    reader, every = BoxReader(problem.info.path), range(len(problem.decomposition))
    streamed, kept = (problem.read(reader, every, "cpu", where) for where in ("stream", "memory"))
    whole = [problem.read_whole(reader, "cpu", where) for where in ("stream", "memory")]
    for split in problem.samples:
        for s in every:
            yield split, streamed[s][split], kept[s][split]
        yield split, *(SideBySide([samples[s][split] for s in every]) for samples in (streamed, kept))
        yield split, *(samples[split] for samples in whole)


@pytest.mark.parametrize("batch_size", [17, 1000])
def test_epochs_are_those_of_memory_bit_by_bit(problem: Problem, batch_size: int) -> None:
    for split, stream, memory in both(problem):
        n = problem.samples[split]
        assert len(stream) == n
        with (
            stream.epoch(3, AugmentationSeed(4)) as (visits, seen),
            memory.epoch(3, AugmentationSeed(4)) as (expected, known),
        ):
            assert torch.equal(visits, expected)
            assert sorted(visits.tolist()) == list(range(n))
            for rows in torch.split(visits, batch_size):
                assert same(seen.batch(rows), known.batch(rows))


def test_parts_of_batches_as_replicas_take_them(problem: Problem) -> None:
    for _, stream, memory in both(problem):
        with stream.epoch(3, AugmentationSeed(4)) as (visits, seen), memory.epoch(3, AugmentationSeed(4)) as (_, known):
            for batch in torch.split(visits, 50):
                assert same(seen.batch(batch[17:34]), known.batch(batch[17:34]))


def test_evaluation_in_order_and_any_rows(problem: Problem) -> None:
    for _, stream, memory in both(problem):
        for rows in (slice(0, 33), slice(33, 66), slice(40, 40), slice(60, 10_000), torch.tensor([9, 2, 2, 24])):
            assert same(stream.batch(rows), memory.batch(rows))


def test_a_window_and_no_more_is_read_ahead(problem: Problem) -> None:
    reader = BoxReader(problem.info.path)
    samples = problem.read(reader, [0], "cpu", "stream")[0]["train"]
    assert isinstance(samples, StreamedSamples)
    assert samples.shape == problem.subimage_shape(0)
    assert reader.bytes_read == 0
    visits, ends = samples.order.draw(len(samples), 1)
    assert len(ends) > 3
    assert max(np.diff([0, *ends])) < 90
    with samples.epoch(1, AugmentationSeed(2)) as (_, seen):
        seen.batch(visits[:5])
    ahead, sizes = reader.bytes_read, []
    for window in torch.tensor_split(visits, ends[:-1])[:2]:
        samples.load(window.sort().values.numpy())
        sizes.append(reader.bytes_read - ahead - sum(sizes))
    assert ahead in (sizes[0], sum(sizes))  # the second one may have been called off


def test_the_thread_ends_whatever_ends_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 60 * 48)
    problem, reader = make_problem(tmp_path, "uint8", (1, 8, 6), {}), BoxReader(tmp_path / "d.h5")
    samples = problem.read(reader, [0], "cpu", "stream")[0]["train"]

    def streaming() -> bool:
        return any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())

    with samples.epoch(1, AugmentationSeed(2)) as (visits, seen):
        seen.batch(visits[:5])
        assert streaming()
    assert not streaming()
    with pytest.raises(KeyError), samples.epoch(1, AugmentationSeed(2)) as (visits, seen):  # noqa: PT012
        seen.batch(visits[:5])
        raise KeyError
    assert not streaming()


@pytest.mark.parametrize("kind", ["damage", "NaN"])
def test_what_is_wrong_in_the_middle_of_the_file_reaches_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    problem = make_problem(tmp_path, "float32", (1, 32, 32), {})
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 90 * 4096)
    monkeypatch.setattr(reading, "_GAP_BYTES", 0)
    path = tmp_path / "d.h5"
    with h5py.File(path, "r+") as file:
        images = file["train/images"][:]
        if kind == "NaN":
            images[170, 0, 3, 3] = np.nan
        del file["train/images"], file["train/images_checksums"], file.attrs["fingerprint"]
        stored = file.create_dataset("train/images", data=images, chunks=(5, 1, 32, 32), compression="gzip")
        chunk = stored.id.get_chunk_info(34)  # of rows 170 to 174
    if kind == "damage":
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
        path.write_bytes(content)
    samples = problem.read(BoxReader(path), [0], "cpu", "stream")[0]["train"]
    expected = r"images\[170\] has a NaN" if kind == "NaN" else "can't be read"
    visited = 0
    assert isinstance(samples, StreamedSamples)
    drawn = {seed: samples.order.draw(N, seed) for seed in range(50)}
    seed = next(seed for seed, (visits, ends) in drawn.items() if 170 in visits[ends[1] :])
    with pytest.raises(UserError, match=expected), samples.epoch(seed, AugmentationSeed(2)) as (visits, seen):  # noqa: PT012
        for rows in torch.split(visits, 10):
            seen.batch(rows)
            visited += 1
    assert 0 < visited < 30
    with pytest.raises(UserError, match=expected):  # noqa: PT012
        for start in range(0, N, 50):
            samples.batch(slice(start, start + 50))

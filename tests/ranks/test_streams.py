"""Whole runs on samples that stay in the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from hpcdd.data.writing import write_dataset

from ..artifacts.networks import read_networks
from ..conftest import make_split
from ..launchers import Launcher, find

pytestmark = pytest.mark.slow

SMALL_WINDOWS = Path(__file__).parent / "small_windows.py"


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six windows an epoch; augmentation, a coarse subdomain, two of three classes, a baseline with shared batches."""
    folder = tmp_path_factory.mktemp("config")
    shutil.copy(tiny, folder / "chunked.h5")
    with h5py.File(folder / "chunked.h5", "r+") as file:
        images = file["train/images"][:]
        del file["train/images"], file["train/images_checksums"], file.attrs["fingerprint"]
        file.create_dataset("train/images", data=images, chunks=(4, 1, 12, 12), compression="gzip")
    content = {
        "data": {
            "file": str(folder / "chunked.h5"), "validation_fraction": 0.1, "storage": "stream",
            "classes": ["two", "four"], "subset": 180,
        },
        "decomposition": {"grid": [1, 2], "coarse": True},
        "augmentation": {"flip": [1]},
        "model": {"name": "vgg1", "width": 4},
        "local": {"epochs": 2, "batch_size": 16},
        "aggregation": {"epochs": 1, "batch_size": 16},
        "coherent": {"epochs": 2, "batch_size": 16},
        "baseline": {"enabled": True, "epochs": 1, "batch_size": 16},
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(content))
    return folder / "c.yaml"


@pytest.fixture(scope="module")
def runs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder, mpi = tmp_path_factory.mktemp("runs"), next(iter(find().values()))
    for ranks, storage, told in ((1, "stream", "streamed from the file"), (3, "memory", "in the host's memory")):
        arguments = [SMALL_WINDOWS, 2 * 27 * 144, "train", config, "--output", folder / str(ranks)]
        arguments += ["--data.storage", storage]
        done = mpi.run(ranks, arguments, folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert f"samples of all ranks: {told}; they are 0.1 MiB" in done.stdout
    return {ranks: folder / str(ranks) for ranks in (1, 3)}


def test_the_same_parameters_bit_by_bit_streamed_on_1_rank_and_in_memory_on_3(runs: dict[int, Path]) -> None:
    one, three = (read_networks(run / "model.h5") for run in runs.values())
    assert one.file.class_names == three.file.class_names == ("two", "four")
    for a, b in [
        *zip(one.local, three.local, strict=True),
        (one.of_strategies["coherent_transfer"], three.of_strategies["coherent_transfer"]),
    ]:
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    results = [json.loads((run / "results.json").read_text()) for run in runs.values()]
    assert results[0]["dataset"] == results[1]["dataset"]
    assert results[0]["dataset"] | {"train": 162, "validation": 18, "test": 60, "classes": 2} == results[0]["dataset"]
    assert results[0]["dataset"]["class_names"] == ["two", "four"]
    of_global = [result["accuracy"]["test"].pop("global") for result in results]
    assert results[0]["accuracy"]["test"] == results[1]["accuracy"]["test"]
    assert of_global[0] == pytest.approx(of_global[1], abs=2 / 60)


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_a_flipped_bit_ends_the_job_with_a_message(mpi: Launcher, tmp_path: Path, storage: str) -> None:
    splits = {"train": make_split(300), "test": make_split(90)}
    write_dataset(tmp_path / "flipped.h5", splits, name="d", class_names="abc", compression=0)
    with h5py.File(tmp_path / "flipped.h5") as file:
        offset = file["train/images"].id.get_chunk_info(0).byte_offset + 1234
    content = bytearray((tmp_path / "flipped.h5").read_bytes())
    content[offset] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    arguments = ["train", "--data.file", "flipped.h5", "--data.storage", storage, "--model.name", "vgg1"]
    done = mpi.hpcdd(2, arguments, tmp_path)
    assert done.returncode == 2, done.stderr
    message = "flipped.h5 can't be read: train/images[0] to [299] are damaged (wrong checksum)"
    assert done.stderr.count(message) in ((1,) if storage == "memory" else (1, 2))  # ranks that stream meet it each
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/results.json"))


@pytest.mark.parametrize("ranks", [2])
def test_damage_that_one_rank_meets_ends_the_job_with_a_message(
    mpi: Launcher, config: Path, tmp_path: Path, ranks: int
) -> None:
    shutil.copy(config.parent / "chunked.h5", tmp_path / "damaged.h5")
    with h5py.File(tmp_path / "damaged.h5") as file:
        assert np.prod(file["train/images"].chunks) == 4 * 144
        chunk = file["train/images"].id.get_chunk_info(40)
    content = bytearray((tmp_path / "damaged.h5").read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "damaged.h5").write_bytes(content)
    arguments = [SMALL_WINDOWS, 2 * 27 * 144, "train", config, "--data.file", "damaged.h5"]
    done = mpi.run(ranks, arguments, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "damaged.h5 can't be read" in done.stderr
    assert "Traceback" not in done.stderr

"""A rank reads its boxes from a file that it could never hold: under a limit of its address space, in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcdd.data.format import inspect

SAMPLES, IMAGE, GRID = 90_000, 384, 8
BOX_BYTES = SAMPLES * (IMAGE // GRID) ** 2
ALLOWANCE = 300_000_000

PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from hpcdd.runs import pipeline  # everything that a run imports
from hpcdd.config.schema import Config
from hpcdd.data.reading import BoxReader
from hpcdd.data.problem import build_problem
from hpcdd.data.samples import AugmentationSeed

def now(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

path, storage, allowance, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.zeros(10, requires_grad=True).sum().backward()
resident, limit = now("VmRSS"), now("VmSize") + allowance
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert limit < size, (limit, size)
config = Config(data={"file": path}, decomposition={"grid": [8, 8]}, model={"name": "vgg1", "local_width": 1},
                aggregation={"placement": "distributed"})
problem, reader = build_problem(config), BoxReader(Path(path))
samples = problem.read(reader, [9], "cpu", storage)[9]
assert samples["test"].batch(slice(0, 2))[0].shape == (2, 1, 48, 48)
with samples["train"].epoch(1, AugmentationSeed(1)) as (order, seen):
    for rows in torch.split(order, 4096):
        inputs, labels = seen.batch(rows[:16])
        assert inputs.shape == (len(rows[:16]), 1, 48, 48)
print(reader.bytes_read, now("VmHWM") - resident)
try:
    problem.read_whole(reader, "cpu")
except MemoryError:
    print("the limit works")
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 GB of images in chunks of the boxes, none of which was ever written: the file has holes in their place."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    pixels = IMAGE // GRID
    with h5py.File(path, "w") as file:
        for split, n in (("train", SAMPLES), ("test", 2)):
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_chunk((min(n, 227), 1, pixels, pixels))
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((n, 1, IMAGE, IMAGE))
            h5py.h5d.create(file.create_group(split).id, b"images", h5py.h5t.NATIVE_UINT8, space, layout)
            file[split].create_dataset("labels", data=np.arange(n) % 2)
        file.attrs.update({"hpcdd_format": 1, "name": "large", "mean": [0.0], "std": [1.0], "class_names": ["a", "b"]})
    assert inspect(path).samples["train"] == SAMPLES
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("storage", "boxes"), [("memory", BOX_BYTES), ("stream", 0)])
def test_a_rank_takes_its_boxes_and_less_than_300_mb_more(large: Path, storage: str, boxes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, large, storage, str(boxes + ALLOWANCE), str(large.stat().st_size)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers, works = done.stdout.splitlines()
    bytes_read, peak = map(int, numbers.split())
    most = BOX_BYTES + 2 * (IMAGE // GRID) ** 2
    assert 0.9 * most < bytes_read <= most  # where the last windows are not asked for they are not read
    assert peak < boxes + ALLOWANCE
    assert works == "the limit works"

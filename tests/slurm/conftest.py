"""The two-node Slurm, and the stub of `python -m hpcdd` in its jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster, missing, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if lack := missing():
        pytest.skip(lack)
    with running() as cluster:
        yield cluster

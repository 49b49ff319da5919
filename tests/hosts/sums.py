"""``python sums.py NUMBERS TIMES``: what a coherent step sends, so many times, and nothing else."""

from __future__ import annotations

import sys

import numpy as np

from hpcdd.mpi import communicator


def main() -> None:
    everyone = communicator.world()
    values = np.ones(int(sys.argv[1]), np.int64)
    result = np.empty_like(values)
    for _ in range(int(sys.argv[2])):
        everyone.sum(values, result)
    assert int(result[0]) == everyone.size


if __name__ == "__main__":
    main()

"""``python places.py OUT.json SUBDOMAINS NUMBERS``: a job that trains nothing. Every host seems to have two GPUs.

Root writes where the ranks are, by which network PyTorch would go, what is said where the network that is asked for
leads nowhere, and the seconds that an Allreduce of that many 8-byte numbers takes (the fastest of three).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

from hpcdd.bench import gloo
from hpcdd.core.errors import UserError
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import communicator


def gpus() -> list[str]:
    return [f"{socket.gethostname()}-gpu{number}" for number in range(2)]


def main() -> None:
    out, subdomains, numbers = sys.argv[1:]
    everyone = communicator.world()
    of_gpus = {"visible_gpus": gpus, "use_device": mock.DEFAULT, "arithmetic_of": lambda *_: "a GPU"}
    with mock.patch.multiple(rank_layout, **of_gpus):
        places = rank_layout.build(everyone, int(subdomains), "auto").as_list()
    network = gloo.find_network(everyone)
    refused = ""
    with mock.patch.dict(os.environ, {gloo.VARIABLE: "docker0"}):
        try:
            gloo.find_network(everyone)
        except UserError as error:
            refused = str(error)
    values, seconds = np.ones(int(numbers), np.int64), []
    for _ in range(3):
        everyone.mpi.Barrier()
        start = time.perf_counter()
        everyone.mpi.Allreduce(values, np.empty_like(values))
        seconds.append(time.perf_counter() - start)
    if everyone.is_root:
        content = {
            "places": places,
            "address": network.address,
            "interfaces": network.interfaces,
            "refused": refused,
            "seconds": min(seconds),
        }
        Path(out).write_text(json.dumps(content))


if __name__ == "__main__":
    main()

"""Where the messages of training steps lie: in the host's memory, into which a GPU's numbers are copied, or on the GPU.

MPI reads and writes them outside of the GPU's stream: before each call the stream must have come that far.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ..core.errors import UserError


def check_gpu_aware(device: str, takes_gpu_memory: Callable[[], bool | None]) -> None:
    """Refuses ``comm.gpu_aware: true`` where it can't work; for a rank that works on ``device``.

    Args:
        device: of the rank.
        takes_gpu_memory: what the MPI library says of itself, see :func:`hpcdd.mpi.runtime.takes_gpu_memory`.

    Raises:
        UserError: there is no GPU, or the MPI library would read a GPU's address as one of the host and crash.
    """
    if device == "cpu":
        raise UserError("comm.gpu_aware is true, but CNNs are trained on the CPU, where it has no effect; leave it out")
    if takes_gpu_memory() is False:
        raise UserError(
            "comm.gpu_aware is true, but this MPI library reports that it was built without CUDA; use one built with "
            "CUDA, or leave it out"
        )


class Staging:
    """Buffers for MPI, and what has to be waited for.

    Args:
        direct: hand the tensors of the device itself to MPI (``comm.gpu_aware``), instead of copies in pinned memory
            of the host.

    Attributes:
        direct: see above.
    """

    def __init__(self, *, direct: bool = False) -> None:
        self.direct = direct
        self._pinned: dict[tuple[int, torch.dtype, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def pair(
        self, size: int, dtype: torch.dtype, device: torch.device, ranks: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A buffer to send, (size,), and one to receive, (ranks * size,), for numbers that are on ``device``.

        To pin memory is slow: pinned buffers are given out again, and hold what they held until the next call.
        """
        if device.type == "cpu" or self.direct:
            return torch.empty(size, dtype=dtype, device=device), torch.empty(ranks * size, dtype=dtype, device=device)
        key = size, dtype, ranks
        if key not in self._pinned:
            self._pinned[key] = _pinned(size, dtype), _pinned(ranks * size, dtype)
        return self._pinned[key]

    def ready(self, device: torch.device) -> None:
        """Waits until the device has done what it was asked to, copies among it: then MPI may have the buffers."""
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()

    def for_mpi(self, buffer: torch.Tensor) -> Any:
        """What mpi4py takes for a buffer: numpy's array of the host's memory, or the tensor itself."""
        return buffer if self.direct else buffer.numpy()


def seconds_of_copies(
    staging: Staging, size: int, dtype: torch.dtype, device: torch.device, number: int = 100
) -> float:
    """Seconds that one message's copies take, from the device to what MPI gets and back: the median of ``number``."""
    there, back = torch.zeros(size, dtype=dtype, device=device), torch.empty(size, dtype=dtype, device=device)
    message, total = staging.pair(size, dtype, device)
    total.zero_()
    staging.ready(device)
    seconds = []
    for _ in range(number):
        start = time.perf_counter()
        message.copy_(there, non_blocking=True)
        staging.ready(device)
        back.copy_(total, non_blocking=True)
        staging.ready(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _pinned(size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)

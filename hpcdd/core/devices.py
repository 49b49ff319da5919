"""What a rank works on: the GPUs that it sees, and how its processor rounds. torch is imported when it is asked."""

from __future__ import annotations

from . import heap
from .environment import available_memory, processor


def arithmetic_of(device: str, threads: int) -> str:
    """What the last bits of a rank's results depend on, besides the versions of its libraries, in words."""
    import torch

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor()} ({capability}), {threads} thread{'s' * (threads > 1)}"


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs that this process sees, in torch's order."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def use_processor(threads: int, ranks: int) -> None:
    """Sets this process's threads, and makes it keep the memory that its training steps free.

    Args:
        threads: of a rank.
        ranks: on its host, which share the memory.
    """
    import torch

    torch.set_num_threads(threads)
    heap.keep(available_memory() // (2 * ranks))


def use_device(device: str) -> None:
    """Makes a GPU this process's own: what names no device is meant for it, MPI and the recording of steps too."""
    import torch

    torch.cuda.set_device(device)

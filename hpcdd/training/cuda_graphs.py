"""A training step on a GPU as a CUDA graph: recorded once and replayed, so that hundreds of small kernels start as one.

A small CNN's kernels take less time than the host needs to start them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

WARM_UP = 3
"""Steps that are done as they are, before one is recorded: libraries choose their algorithms in them."""


class CUDARecorder:
    """Records on one GPU.

    Args:
        device: the GPU.
        generators: from which the work draws, besides torch's global one: they continue from replay to replay.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._device, self._generators = device, generators

    def warm_up(self, work: Callable[[], None]) -> None:
        """Does the work on a stream of its own, as it will be recorded: on the default one nothing can be."""
        present = torch.cuda.current_stream(self._device)
        stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(present)
        with torch.cuda.stream(stream):
            work()
        present.wait_stream(stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records the work without doing it; what is returned does it, on the same tensors and as often as wanted."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may look at the GPU meanwhile
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def recorder_of(device: torch.device, generators: Sequence[torch.Generator]) -> CUDARecorder | None:
    """What records on a device; None on a CPU, where there is nothing to gain."""
    return CUDARecorder(device, generators) if device.type == "cuda" else None


class Replayed:
    """Does ``work`` on one tensor after the other: at first as it is, then from its record.

    Args:
        work: reads and writes, besides its argument, the same tensors every time, and never waits for the device.
        recorder: of the device.
    """

    def __init__(self, work: Callable[[torch.Tensor], None], recorder: CUDARecorder) -> None:
        self._work, self._recorder = work, recorder
        self._done = 0
        self._argument: torch.Tensor | None = None
        self._replay: Callable[[], None] = lambda: None

    def __call__(self, argument: torch.Tensor) -> None:
        """Args: ``argument``: of one shape, dtype and device every time."""
        if self._done < WARM_UP:
            self._done += 1
            self._recorder.warm_up(lambda: self._work(argument))
            return
        if self._argument is None:
            kept = self._argument = argument.clone()
            try:
                self._replay = self._recorder.record(lambda: self._work(kept))
            except RuntimeError as error:
                error.add_note("while recording a step as a CUDA graph; `batched: false` runs every step without one")
                raise
        self._argument.copy_(argument)
        self._replay()

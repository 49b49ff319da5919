"""hpcdd's local training compared with a plain PyTorch loop, in one process, interleaved.

The plain loop is what a good engineer writes for one subimage's CNN: all images normalised once and kept as float32,
channels last, no DataLoader, a fused optimizer, the same schedule, the loss summed without reading it. Network, initial
parameters, batch size and threads are the same; its dropout and batch norm are torch's. hpcdd's side is
:func:`hpcdd.phases.local.train_cnns` as in a run, with all that it does between steps; at its step boundaries the
plain loop works.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import Config, LocalSettings
from ..core.interleaved_timing import quartiles, spread
from ..data.problem import Problem
from ..data.samples import Subimages
from ..models.batch_norm import pytorchs
from ..models.layers import Dropout
from ..phases.local import create_local_cnn, trains_batched
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.optimizers import make_optimizer, make_schedule
from ..training.step_timing import PARTS, marked
from ..training.trainer import Member
from .alternating import Alternation, train_alternating
from .single_steps import finish


@dataclass(frozen=True)
class StepComparison:
    """One subdomain's step.

    Attributes:
        ours, plain: seconds of a step, of each round.
        parts: of hpcdd's step, seconds by part (:data:`hpcdd.training.step_timing.PARTS`, and ``bookkeeping``).
    """

    ours: list[float]
    plain: list[float]
    parts: dict[str, float]

    def __str__(self) -> str:
        ratios = [b / a for a, b in zip(self.ours, self.plain, strict=True)]
        total = sum(self.parts.values())
        return (
            f"hpcdd {spread(quartiles(self.ours), 1e-3)} ms, plain {spread(quartiles(self.plain), 1e-3)} ms, "
            f"plain / hpcdd {spread(quartiles(ratios), digits=3)}\n  "
            + ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in self.parts.items())
        )


def compare(
    config: Config, problem: Problem, subdomain: int, training: Subimages, device: str, rounds: int, steps: int
) -> StepComparison:
    """Trains one local CNN twice; the two trainings alternate after a number of steps.

    Args:
        config: of the run.
        problem: what is to be solved.
        subdomain: s.
        training: its training split, without augmentation.
        device: of both.
        rounds: in each of which both are measured; one more warms up.
        steps: of each in a round.
    """

    def train(alternation: Alternation) -> None:
        network = _network(config, problem, subdomain, device)
        member = Member(subdomain, network, training, None, NullCheckpointManager())
        train_alternating(alternation, config, [member], batched=trains_batched(config, training.labels.device.type, 1))

    plain = PlainLoop(config.local, _network(config, problem, subdomain, device, torchs=True), training)
    ours = Alternation(steps, rounds + 1, lambda: finish(device), plain.step)
    train(ours)
    clock = _Clock(device)
    measured = Alternation(steps, rounds + 1, lambda: finish(device), lambda: None)
    with marked(clock.part):
        train(measured)
    number = steps * (rounds + 1)
    parts = {name: clock.seconds[name] / number for name in PARTS}
    parts["bookkeeping"] = sum(measured.seconds) / len(measured.seconds) - sum(parts.values())
    return StepComparison(ours.seconds[1:], ours.others[1:], parts)


def _network(config: Config, problem: Problem, subdomain: int, device: str, *, torchs: bool = False) -> nn.Module:
    """The local CNN with its initial parameters; with torch's own dropout and batch norm."""
    shape, classes, width = problem.subimage_shape(subdomain), problem.info.num_classes, problem.widths.local_width
    network = create_local_cnn(config, subdomain, shape, classes, width)
    if torchs:
        use_torch_layers(network)
    return network.to(device)


def use_torch_layers(network: nn.Module) -> None:
    """Puts torch's own dropout, with the same rates, and batch norm in the place of hpcdd's."""
    pytorchs(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))


class PlainLoop:
    """The plain loop, one step after the other."""

    def __init__(self, settings: LocalSettings, network: nn.Module, training: Subimages) -> None:
        images, self._labels = training.batch(slice(None))
        self._images, self._network, self._size = images, network.train(), settings.batch_of(len(training))
        self._settings = settings
        self._optimizer = make_optimizer(network, settings)
        self._schedule = make_schedule(self._optimizer, settings, 1 << 30)
        self._loss = torch.zeros((), device=images.device)
        self._batches = self._epochs()

    def _epochs(self) -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(self._labels), device=self._labels.device)
            yield from torch.split(order, self._size)[: len(order) // self._size]

    def step(self) -> None:
        """One step."""
        batch = next(self._batches)
        with torch.autocast(self._labels.device.type, torch.bfloat16, enabled=self._settings.bf16):
            loss = functional.cross_entropy(
                self._network(self._images[batch]),
                self._labels[batch],
                label_smoothing=self._settings.label_smoothing,
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        self._loss += loss.detach()


class _Clock:
    """Seconds by part, until the device has done its work."""

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._device = device

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the ``with`` block's time to one part's."""
        start = time.perf_counter()
        yield
        finish(self._device)
        self.seconds[name] += time.perf_counter() - start

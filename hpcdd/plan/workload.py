"""Pieces of work that a run consists of, and how long each takes on a measured machine.

The steps of a run on one rank, messages apart, are sums of few kinds of work: a training step of a CNN on a batch, a
batch through a CNN in evaluation mode, a training step of the DNN, and one of a rank's part of it when it is trained
coherently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..config.schema import AggregationSettings, Config
from ..data.problem import Problem
from ..decomposition.boxes import by
from ..phases.coherent import feature_widths
from . import fake_networks, simulate
from .simulate import Simulated

Kind = Literal["cnn", "evaluation", "dnn", "head"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        kind: see :class:`hpcdd.plan.machine.MeasuredStep`.
        network: what is trained on what, in words that differ where its time may.
        batch: samples.
        summands: subdomains of a rank, of a head; else 1.
        precision: of the CNNs.
    """

    kind: Kind
    network: str
    batch: int
    summands: int = 1
    precision: Precision = "fp32"


@dataclass
class Workload:
    """The work of a run, and what each piece of it takes.

    Attributes:
        config, problem: of the run.
    """

    config: Config
    problem: Problem
    _simulated: dict[Work, Callable[[], Simulated] | Simulated] = field(default_factory=dict)

    def local_cnn(self, subdomain: int, batch: int, precision: Precision) -> Work:
        """A training step of CNN_s."""
        return self._cnn("cnn", self._local(subdomain), batch, precision, lambda: self._network(subdomain))

    def local_evaluation(self, subdomain: int, batch: int) -> Work:
        """A batch through CNN_s in evaluation mode."""
        return self._cnn("evaluation", self._local(subdomain), batch, "fp32", lambda: self._network(subdomain))

    def global_cnn(self, batch: int) -> Work:
        """A training step of the global CNN."""
        precision = self.config.baseline.computed_in
        return self._cnn("cnn", self._global(), batch, precision, lambda: fake_networks.global_cnn(self.problem))

    def global_evaluation(self, batch: int) -> Work:
        """A batch through the global CNN in evaluation mode."""
        return self._cnn("evaluation", self._global(), batch, "fp32", lambda: fake_networks.global_cnn(self.problem))

    def dnn(self, batch: int, subdomains: int | None = None) -> Work:
        """A training step of the DNN as root trains it, on the outputs of all local CNNs, or of that many."""
        inputs = (subdomains or len(self.problem.decomposition)) * self.problem.info.num_classes

        def simulated() -> Simulated:
            network = fake_networks.dense(self.config, self.problem, inputs)
            return simulate.training_step(network, lambda: torch.zeros(batch, inputs), batch)

        return self._known(Work("dnn", self._dense(inputs, self.config.aggregation), batch), simulated)

    def head(self, summands: int, batch: int) -> Work:
        """A training step of the DNN's part of a rank that owns that many subdomains, each as wide as the widest."""
        config, widths = self.config, feature_widths(self.problem, self.config.coherent_features)

        def of(number: int) -> Simulated:
            network = fake_networks.head(config, self.problem, range(number), config.coherent_features)
            return simulate.training_step(
                network, lambda: [torch.zeros(batch, widths[s]) for s in range(number)], batch
            )

        def simulated() -> Simulated:
            one = of(1)
            if summands == 1:
                return one
            of_each = of(2).flops - one.flops  # without going through thousands of alike columns
            flops = one.flops + (summands - 1) * of_each
            return Simulated(flops, one.peak_bytes * summands, one.kept_bytes * summands)

        words = f"{self._dense(max(widths), config.coherent_dnn)}, {config.reduction}"
        return self._known(Work("head", words, batch, summands), simulated)

    def simulated(self, work: Work) -> Simulated:
        """Operations and memory of one of these pieces.

        Raises:
            UserError: the user's own network can't be gone through with shapes alone.
        """
        found = self._simulated[work]
        if not isinstance(found, Simulated):
            found = self._simulated[work] = found()
        return found

    def _cnn(
        self,
        kind: Kind,
        what: tuple[Sequence[int], int],
        batch: int,
        precision: Precision,
        make: Callable[[], torch.nn.Module],
    ) -> Work:
        shape, width = what

        def simulated() -> Simulated:
            rows = max(batch, simulate.LEAST_ROWS)
            images = simulate.images(tuple(shape), rows, self.problem.info.dtype)
            if kind == "evaluation":
                return simulate.evaluation(make(), images)
            return simulate.training_step(make(), images, rows, bf16=precision == "bf16").of_part(batch, rows)

        return self._known(Work(kind, self._words(shape, width, kind), batch, 1, precision), simulated)

    def _known(self, work: Work, simulated: Callable[[], Simulated]) -> Work:
        self._simulated.setdefault(work, simulated)
        return work

    def _local(self, subdomain: int) -> tuple[Sequence[int], int]:
        return self.problem.subimage_shape(subdomain), self.problem.widths.local_width

    def _global(self) -> tuple[Sequence[int], int]:
        return self.problem.info.image_shape, self.problem.widths.global_width

    def _network(self, subdomain: int) -> torch.nn.Module:
        return fake_networks.local_cnn(self.problem, subdomain)

    def _words(self, shape: Sequence[int], width: int, kind: Kind) -> str:
        model, views = self.problem.model, ""
        if self.problem.augmentation is not None and kind == "cnn":
            shifted, mirrors = any(self.problem.augmentation.shift), len(self.problem.augmentation.mirrors)
            views = ", shifted" * shifted + f", {mirrors} mirror images" * (mirrors > 1)
        options = "".join(f", {key} {value}" for key, value in sorted(model.options.items()))
        return (
            f"{model.name} of width {width}{options} on {by(shape)} {self.problem.info.dtype}, "
            f"{self.problem.info.num_classes} classes{views}"
        )

    def _dense(self, inputs: int, settings: AggregationSettings) -> str:
        units = [inputs, *settings.hidden, self.problem.info.num_classes]
        return f"dense {'-'.join(map(str, units))}"

"""Units of work that a run consists of, with the operations and the memory of each.

The steps of a run on one rank, without messages, are sums of few kinds of work: a training step of a CNN on a batch, a
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
from . import fake_networks, simulate
from .simulate import Simulated

Kind = Literal["cnn", "evaluation", "dnn", "head"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Work:
    """A unit of work.

    Attributes:
        kind: see :class:`hpcdd.plan.machine.MeasuredStep`.
        network: description of the network and its input, which differs where the time may differ.
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
    """The units of work of a run, and their costs.

    Attributes:
        config, problem: of the run.
    """

    config: Config
    problem: Problem
    _simulated: dict[Work, Callable[[], Simulated] | Simulated] = field(default_factory=dict)

    def local_cnn(self, subdomain: int, batch: int, precision: Precision) -> Work:
        """A training step of CNN_s."""
        return self._cnn("cnn", subdomain, batch, precision)

    def local_evaluation(self, subdomain: int, batch: int) -> Work:
        """A batch through CNN_s in evaluation mode."""
        return self._cnn("evaluation", subdomain, batch, "fp32")

    def global_cnn(self, batch: int) -> Work:
        """A training step of the global CNN."""
        return self._cnn("cnn", None, batch, self.config.baseline.computed_in)

    def global_evaluation(self, batch: int) -> Work:
        """A batch through the global CNN in evaluation mode."""
        return self._cnn("evaluation", None, batch, "fp32")

    def dnn(self, batch: int, inputs: int | None = None) -> Work:
        """A training step of the DNN as root trains it, on the outputs of all local CNNs, or on that many inputs."""
        inputs = inputs or sum(self.problem.feature_widths(self.config.aggregation.features))

        def simulated() -> Simulated:
            network = fake_networks.dnn(self.config, self.problem, widths=[inputs])
            return simulate.training_step(network, lambda: torch.zeros(batch, inputs), batch)

        return self._known(Work("dnn", self._describe_dnn(inputs, self.config.aggregation), batch), simulated)

    def head(self, summands: int, batch: int, *, coherent: bool) -> Work:
        """A training step of the part of a DNN (``coherent``: of the coherent model's) of a rank that owns that many
        subdomains, each as wide as the widest.
        """
        config = self.config
        settings = config.coherent_dnn if coherent else config.aggregation
        widths = self.problem.feature_widths(settings.features)

        def of(number: int) -> Simulated:
            network = fake_networks.head(config, self.problem, range(number), coherent=coherent)
            return simulate.training_step(
                network, lambda: [torch.zeros(batch, widths[s]) for s in range(number)], batch
            )

        def simulated() -> Simulated:
            one = of(1)
            if summands == 1:
                return one
            of_each = of(2).flops - one.flops  # without tracing thousands of identical columns
            flops = one.flops + (summands - 1) * of_each
            return Simulated(flops, one.peak_bytes * summands, one.kept_bytes * summands)

        description = f"{self._describe_dnn(max(widths), settings)}, {config.reduction}"
        return self._known(Work("head", description, batch, summands), simulated)

    def simulated(self, work: Work) -> Simulated:
        """Operations and memory of a unit of work that a method of this workload has returned.

        Raises:
            UserError: the user's own network can't be traced with shapes alone.
        """
        simulated = self._simulated[work]
        if not isinstance(simulated, Simulated):
            simulated = self._simulated[work] = simulated()
        return simulated

    def _cnn(self, kind: Kind, subdomain: int | None, batch: int, precision: Precision) -> Work:
        """Work of CNN_s, or of the global CNN where ``subdomain`` is None."""
        problem, widths = self.problem, self.problem.widths
        if subdomain is None:
            shape, width = problem.info.image_shape, widths.global_width
        else:
            shape, width = problem.subimage_shape(subdomain), widths.local_width

        def simulated() -> Simulated:
            rows, network = max(batch, simulate.LEAST_ROWS), fake_networks.cnn(problem, shape, width)
            images = simulate.images(shape, rows, problem.info.dtype)
            if kind == "evaluation":
                return simulate.evaluation(network, images)
            return simulate.training_step(network, images, rows, bf16=precision == "bf16").of_part(batch, rows)

        return self._known(Work(kind, self._describe_cnn(shape, width, kind), batch, 1, precision), simulated)

    def _known(self, work: Work, simulated: Callable[[], Simulated]) -> Work:
        self._simulated.setdefault(work, simulated)
        return work

    def _describe_cnn(self, shape: Sequence[int], width: int, kind: Kind) -> str:
        model, augmented = self.problem.model, ""
        if self.problem.augmentation is not None and kind == "cnn":
            translated, flips = any(self.problem.augmentation.translate), len(self.problem.augmentation.flips)
            augmented = ", shifted" * translated + f", {flips} mirror images" * (flips > 1)  # as earlier machine files
        options = "".join(f", {key} {value}" for key, value in sorted(model.options.items()))
        return (
            f"{model.name} of width {width}{options} on {by(shape)} {self.problem.info.dtype}, "
            f"{self.problem.info.num_classes} classes{augmented}"
        )

    def _describe_dnn(self, inputs: int, settings: AggregationSettings) -> str:
        units = [inputs, *settings.hidden, self.problem.info.num_classes]
        return f"dense {'-'.join(map(str, units))}"

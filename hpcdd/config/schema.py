"""The configuration: every setting with its meaning, unit, default and admitted range.

The docstring below each field, or that of a section's class, is its documentation: ``python -m hpcdd train --help``
prints it. How YAML files and command lines become a :class:`Config` is described in :mod:`hpcdd.config.loading`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ..core.names import Start
from .sections import (
    AugmentationSettings,
    CheckpointSettings,
    CommSettings,
    DataSettings,
    DecompositionSettings,
    FileName,
    Fraction,
    ModelSettings,
    RunSettings,
    Settings,
    consistent,
)

Rate = Annotated[float, Field(gt=0)]
Portion = Annotated[float, Field(ge=0.0, le=1.0)]
Features = Literal["logits", "probabilities", "penultimate"]
"""What a DNN sees of a local CNN."""
Kind = Literal["filter", "bias", "dense", "dnn"]
"""Of parameters: filters of convolutions, biases (and batch norm's), those of dense layers, those of the DNN."""


class TrainingSettings(Settings):
    """What any training needs."""

    epochs: PositiveInt = 5
    """Passes over the training split."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Samples per step, at least 2 (needed by batch norm)."""

    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    """Optimizer; muon uses orthogonal steps for the filters of convolutions, and sgd for everything else."""

    learning_rate: Rate = 3e-3
    """Learning rate; for all schedules but constant, its peak."""

    bias_learning_rate: Rate | None = None
    """Learning rate of biases and of batch norm. Default: learning_rate."""

    dense_learning_rate: Rate | None = None
    """Learning rate of dense layers, such as the last one of a CNN. Default: learning_rate."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay: decoupled for adamw, an L2 term in the gradient for adam and sgd. With muon, as for sgd; the norm
    of filters is fixed."""

    momentum: Fraction = 0.9
    """Momentum of sgd and muon (Nesterov momentum unless it is 0)."""

    schedule: Literal["constant", "cosine", "one_cycle", "linear"] = "one_cycle"
    """Schedule of the learning rate over all steps: constant; cosine, which falls to 0; one_cycle, which rises over the
    first 30% of the steps and then falls to nearly 0; linear, which rises over the fraction warm_up of the steps and
    then falls, both linearly, between schedule_ends. A training of one step with one_cycle uses learning_rate."""

    warm_up: Fraction = 0.2
    """For the linear schedule: fraction of the steps, in [0, 1), over which the learning rate rises."""

    schedule_ends: tuple[Portion, Portion] = (0.2, 0.07)
    """For the linear schedule: learning rate at the beginning and at the end, as fractions of its peak, 0 to 1."""

    label_smoothing: Fraction = 0.0
    """Label smoothing, in [0, 1): the fraction of a label that is spread evenly over all classes in the training
    loss."""

    ema: Fraction = 0.0
    """Exponential moving average of the parameters, in [0, 1): the fraction of the average that is kept in each step
    (less at the beginning of a training). The average is what is evaluated and saved. 0: none."""

    early_stopping: PositiveInt | None = None
    """Early stopping: number of epochs without a new best validation accuracy after which training ends with the best
    parameters. Needs a validation split. Default: train all epochs and keep the last parameters."""

    def batch_of(self, samples: int) -> int:
        """Samples of each batch of a split: all of a split that has fewer than ``batch_size``."""
        return min(self.batch_size, samples)

    def steps_per_epoch(self, samples: int) -> int:
        """Steps over a split; its last, smaller batch is dropped."""
        return samples // self.batch_of(samples)

    @property
    def bf16(self) -> bool:
        """Whether the training is in mixed precision by autocast to bfloat16."""
        return False

    @property
    def evaluation_batch(self) -> int:
        """Samples of a batch in evaluation mode: so that it never needs more memory than a training step does."""
        return min(self.batch_size, 512)  # larger ones gain nothing

    def rate_of(self, kind: Kind) -> float:
        """The learning rate of one kind of parameters, defaults resolved."""
        named = {"bias": self.bias_learning_rate, "dense": self.dense_learning_rate, "dnn": self.dense_learning_rate}
        return named.get(kind) or self.learning_rate

    @model_validator(mode="after")
    def _check_effects(self) -> Self:
        problems = []
        for name, belongs in (
            ("momentum", self.optimizer in ("sgd", "muon")),
            ("warm_up", self.schedule == "linear"),
            ("schedule_ends", self.schedule == "linear"),
        ):
            value, to = getattr(self, name), "optimizer" if name == "momentum" else "schedule"
            if not belongs and value != type(self).model_fields[name].default:
                shown = list(value) if isinstance(value, tuple) else value
                problems.append(f"{name} is {shown}, but it has no effect on {to} {getattr(self, to)!r}")
        return consistent(problems, self)


class CNNTrainingSettings(TrainingSettings):
    """What any training of CNNs needs."""

    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """fp32, or bf16: mixed precision by autocast, on devices that compute in bfloat16, and CPUs that only store it
    (which may be slower than fp32). auto: bf16 if the devices of all ranks have instructions for it (GPUs from Ampere
    on; CPUs with avx512_bf16 or amx_bf16), else fp32; a resumed run keeps the choice."""

    @property
    def bf16(self) -> bool:
        """See :attr:`TrainingSettings.bf16`; auto has to be resolved before."""
        return self.precision == "bf16"

    @property
    def computed_in(self) -> Literal["fp32", "bf16"]:
        """The precision, once auto is resolved."""
        return "bf16" if self.bf16 else "fp32"


class LocalSettings(CNNTrainingSettings):
    """Local phase: each subdomain's CNN is trained on its subimages, without messages."""


class AggregationSettings(TrainingSettings):
    """Aggregation: the DNN that is trained on the outputs of the local CNNs."""

    epochs: PositiveInt = 10
    """Passes over the training split."""

    features: Features = "logits"
    """Input of the DNN from each local CNN: its logits, their softmax (as in the papers), or `penultimate`, the input
    of its last layer, of which there are more."""

    hidden: tuple[PositiveInt, ...] = (128, 64)
    """Units of the DNN's hidden layers."""

    dropout: Fraction = 0.0
    """Dropout rate after each hidden layer of the DNN."""

    placement: Literal["root", "distributed"] = "root"
    """Where the DNN is trained: on `root`, which gathers the outputs of all local CNNs; or on all ranks
    (`distributed`), with one message per step, for outputs that don't fit on one rank."""

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if self.optimizer == "muon":
            raise ValueError("optimizer is 'muon', but the DNN has no filters of convolutions; use sgd or adamw")
        return self


class CoherentSettings(CNNTrainingSettings):
    """Coherent phase: all local CNNs and the DNN are trained as one model."""

    learning_rate: Rate | None = None  # type: ignore[assignment]  # resolved by Config.coherent_from
    """Learning rate; for all schedules but constant, its peak. Default, here and of the rates below: that of the local
    phase from scratch, and rate_scale times it for a start by transfer. (Or the local phase's default rate, 3e-3, if
    the optimizers differ.)"""

    rate_scale: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the default learning rates of a start by transfer: small rates preserve what the parts have learned."""

    starts: tuple[Start, ...] = ("transfer",)
    """Initial parameters of the local CNNs: `transfer`, from the local phase; `scratch`, untrained. With both, two
    models are trained, one after the other; [] skips the phase."""

    features: Features | None = None
    """Input of the DNN from each local CNN: its logits, their softmax, or the input of its last layer. Default: the
    same as aggregation.features."""

    dnn_start: Literal["trained", "fresh", "pool"] = "trained"
    """The DNN of the coherent model for a start by transfer: `trained`, from the aggregation; `fresh`, untrained;
    `pool`, a single linear layer that starts as the mean of the logits of the local CNNs (also from scratch)."""

    dnn_learning_rate: Rate | None = None
    """Learning rate of the DNN. Default: dense_learning_rate."""

    parallelism: Literal["model", "data"] = "model"
    """`model`: each rank trains the CNNs of its subdomains, with one message of batch_size x hidden numbers per step.
    `data`: each rank trains a copy of the whole model on its part of every batch, and gradients are averaged."""

    frozen: Annotated[int, Field(ge=0, le=9)] = 0
    """fast only: first stages of the local CNNs that are kept fixed after a start by transfer, which makes
    steps cheaper: 1 freezes the whitening, 2 also the first group, and so on."""

    dropout_scale: Portion = 1.0
    """Factor, 0 to 1, on the dropout rates of the local CNNs during the coherent phase."""

    def rate_of(self, kind: Kind) -> float:
        """See :meth:`TrainingSettings.rate_of`."""
        return (self.dnn_learning_rate if kind == "dnn" else None) or super().rate_of(kind)

    @model_validator(mode="after")
    def _check_starts(self) -> Self:
        problems = []
        if len(set(self.starts)) < len(self.starts):
            problems.append(f"starts is {list(self.starts)}; name each start once")
        if self.frozen and self.starts == ("scratch",):
            problems.append("frozen has no effect on a start from scratch, where nothing is trained yet")
        if self.dnn_start == "fresh" and self.starts == ("scratch",):
            problems.append("dnn_start has no effect on a start from scratch, whose DNN is always fresh")
        if self.learning_rate is not None and self.rate_scale != type(self).model_fields["rate_scale"].default:
            problems.append("rate_scale has no effect if learning_rate is set")
        return consistent(problems, self)


class BaselineSettings(CNNTrainingSettings):
    """Baseline: the global CNN on whole images, data-parallel over the same ranks."""

    enabled: bool = False
    """Whether the baseline is trained."""


class Config(Settings):
    """The configuration of a run. It can't be changed after it was made.

    >>> Config.load(overrides={"local.epochs": 2}).local.epochs
    2
    """

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")] = "run"
    """Name of the run, used in its results and in the default output folder."""

    output: FileName | None = None
    """Run directory; an unfinished run in it is resumed. As in every path, `~` and environment variables are
    resolved (`$SCRATCH/x`; `$$` is a dollar sign). Default: runs/NAME-K with the first free K."""

    seed: NonNegativeInt = 0
    """Seed of all random numbers. Those of a subdomain do not depend on the number of ranks."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where CNNs are trained: `auto` uses a GPU if the rank's host has one; `cuda` without a GPU is an error."""

    progress: Literal["auto", "live", "lines", "off"] = "auto"
    """How progress is shown: `live` redraws a table on the terminal, `lines` prints a line per epoch, and `auto` is
    live if root can reach a terminal and otherwise lines."""

    reduction: Literal["ordered", "fast"] = "ordered"
    """How the summands of the DNN's first layer are added over the ranks: `ordered`, in fixed point, with the same bits
    on any number of ranks; `fast`, in floating point, equal up to rounding, with half the bytes."""

    shared_batches: Literal["exact", "fast"] = "exact"
    """Where ranks share batches (replicas, data parallelism, baseline): `exact`, batch norm statistics and dropout
    masks are those of the whole batch, as on one rank; `fast`, each rank has its own, as in PyTorch's
    DistributedDataParallel."""

    batched: bool | Literal["auto"] = "auto"
    """Whether a rank trains its CNNs of the same shape as batched networks, instead of one after the other. The
    results are equal up to rounding, but their bits depend on which CNNs a rank has. `auto`: only on GPUs, which one
    small CNN leaves mostly idle. On a CPU, many small CNNs can gain as well: `hpcdd bench step` measures it."""

    data: DataSettings = DataSettings()
    decomposition: DecompositionSettings = DecompositionSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    model: ModelSettings = ModelSettings()
    local: LocalSettings = LocalSettings()
    aggregation: AggregationSettings = AggregationSettings()
    coherent: CoherentSettings = CoherentSettings()
    baseline: BaselineSettings = BaselineSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    comm: CommSettings = CommSettings()
    run: RunSettings = RunSettings()

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, overrides: Mapping[str, object] | None = None) -> Config:
        """The configuration of a YAML file, with some settings replaced.

        Args:
            path: path of the file; default: the packaged quick start.
            overrides: values by full name (``local.epochs``), or nested mappings by section.

        Raises:
            UserError: with one line per mistake: its place in the file or the overrides, what was found, and the
                nearest valid name if a name is unknown.
        """
        from .loading import load  # which imports this class
        from .options import Overrides

        return load(path, Overrides.of(overrides or {}))

    @property
    def coherent_features(self) -> Features:
        """Input of the DNN in the coherent phase, with the default resolved."""
        return self.coherent.features or self.aggregation.features

    def coherent_from(self, start: Start) -> CoherentSettings:
        """The settings of the coherent phase with the default learning rates resolved, and ``frozen`` 0 from scratch.

        Args:
            start: ``transfer`` or ``scratch``.
        """
        local, coherent = self.local, self.coherent
        if start == "scratch":
            coherent = coherent.model_copy(update={"frozen": 0})
        factor = coherent.rate_scale if start == "transfer" else 1.0
        rates = ("learning_rate", "bias_learning_rate", "dense_learning_rate")
        if coherent.learning_rate is not None:
            return coherent
        source = local if local.optimizer == coherent.optimizer else LocalSettings()
        update = {
            name: factor * value
            for name in rates
            if getattr(coherent, name) is None and (value := getattr(source, name)) is not None
        }
        return coherent.model_copy(update=update)

    @property
    def coherent_dnn(self) -> AggregationSettings:
        """The settings of the coherent model's DNN: those of the aggregation with the features that it sees, and a
        single layer for a pool.
        """
        layers = {"hidden": (), "dropout": 0.0} if self.coherent.dnn_start == "pool" else {}
        return self.aggregation.model_copy(update={"features": self.coherent_features, **layers})

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        seen, wanted = self.aggregation.features, self.coherent_features
        if self.coherent.dnn_start == "pool" and wanted == "probabilities":
            problems.append(
                "coherent.features is 'probabilities', but coherent.dnn_start 'pool' is the mean of logits; use "
                "coherent.features logits or penultimate"
            )
        # Logits are linear in the penultimate features, so that a DNN on logits is one on them as well.
        continues = "transfer" in self.coherent.starts and self.coherent.dnn_start == "trained"
        if continues and wanted not in (seen, {"logits": "penultimate"}.get(seen)):
            problems.append(
                f"coherent.features is {wanted!r}, but a start by transfer (coherent.starts) with coherent.dnn_start "
                f"'trained' resumes a DNN that sees {seen} (aggregation.features); use coherent.dnn_start fresh, "
                "or like features"
            )
        if self.batched is True and self.model.has_user_factory:
            problems.append(
                f"batched is true, but CNNs of your own ({self.model.name!r}) are trained one after the other"
            )
        if self.coherent.dropout_scale != 1 and (self.model.name.startswith("resnet") or self.model.fast_stages):
            problems.append(f"coherent.dropout_scale has no effect on {self.model.name!r}, which has no dropout")
        stages = self.model.fast_stages
        if self.coherent.frozen and not stages:
            problems.append(f"coherent.frozen has no effect on {self.model.name!r}; it belongs to the fast family")
        elif self.coherent.frozen > stages:
            problems.append(f"coherent.frozen is {self.coherent.frozen}, but {self.model.name!r} has {stages} stages")
        dense, dnn = self.coherent.dense_learning_rate, self.coherent.dnn_learning_rate
        if stages and wanted == "penultimate" and None not in (dense, dnn):
            problems.append(
                f"coherent.dense_learning_rate has no effect on {self.model.name!r} with penultimate features, which "
                "leave the DNN as the only dense layers, and coherent.dnn_learning_rate; leave one of them out"
            )
        if self.comm.gpu_aware and self.device == "cpu":
            problems.append("comm.gpu_aware has no effect on device 'cpu'")
        return consistent(problems, self)


def is_batched(setting: bool | Literal["auto"], device: str) -> bool:
    """What ``batched`` means on a device, such as ``cpu`` or ``cuda:0``."""
    return device != "cpu" if setting == "auto" else setting

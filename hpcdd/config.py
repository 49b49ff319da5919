"""The configuration: every setting with its meaning, unit, default and admitted range.

The docstring below each field is its documentation: ``python -m hpcdd train --help`` prints it. How YAML files
and command lines become a :class:`Config` is told in :mod:`hpcdd.configuration`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Interval = tuple[tuple[NonNegativeInt, ...], tuple[PositiveInt, ...]]


class Settings(BaseModel):
    """Base of all sections: frozen, and nothing but the documented fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


S = TypeVar("S", bound=Settings)


def _consistent(problems: list[str], settings: S) -> S:
    """The settings, if no rule across their fields is broken; else every problem at once."""
    if problems:
        raise ValueError("; ".join(problems))
    return settings


class DataSettings(Settings):
    """The data set and its splits."""

    file: Annotated[str, Field(min_length=1)] = "embedded"
    """Path of a dataset file (made by `hpcdd prepare`), or `embedded`: 12,000 images of Fashion-MNIST."""

    validation_fraction: Fraction = 0.0
    """Share of the training split, in [0, 1), that is set aside class by class for validation.
    Only for files without a validation split of their own."""


class DecompositionSettings(Settings):
    """How an image is cut into subimages."""

    grid: tuple[PositiveInt, ...] | None = None
    """Subdomains along each spatial axis, e.g. [2,2]; default: 2 along every axis."""

    overlap: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    """Pixels by which a box reaches over each interior side of its core: one number, or one per spatial axis."""

    boxes: tuple[Interval, ...] | None = None
    """Explicit boxes instead of a grid, each as [[first pixel per axis], [one past the last pixel per axis]]."""

    coarse: bool = False
    """One more subdomain: the whole image, averaged in blocks of pixels down to the size of a subimage."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.boxes is not None:
            if self.grid is not None:
                problems.append("decomposition.boxes and decomposition.grid are both set; use one of them")
            if self.overlap not in (0, ()):
                problems.append("decomposition.overlap grows the cores of a grid, but decomposition.boxes are set")
            if not self.boxes:
                problems.append("decomposition.boxes is empty; name at least one box")
        return _consistent(problems, self)


class ModelSettings(Settings):
    """The CNN family; all local CNNs and the global CNN are of one family."""

    name: str = "vgg3"
    """`vggN` with N blocks (vgg3), `resnetM` with M = 6n+2 layers (resnet20), or `package.module:factory`
    for your own: called with input_shape, num_classes, width and model.options, it returns a torch.nn.Module."""

    width: PositiveInt = 32
    """Channels of the global CNN's first block."""

    local_width: PositiveInt | Literal["match"] = "match"
    """Channels of the local CNNs' first block; `match`: the largest for which all local CNNs together have
    at most the global CNN's parameters."""

    dropout: tuple[Fraction, Fraction] | None = None
    """VGG only: dropout rates after the first block and after the dense layer, rising evenly between;
    default: [0.2, 0.5]."""

    options: dict[str, JsonValue] = {}
    """Further keyword arguments of your own factory."""

    @property
    def is_own(self) -> bool:
        """Whether the CNN comes from the user's factory."""
        return ":" in self.name

    @property
    def vgg_dropout(self) -> tuple[float, float]:
        """The dropout rates of a VGG, the default resolved."""
        return self.dropout or (0.2, 0.5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        name, problems = self.name, []
        if vgg := re.fullmatch(r"vgg([0-9]+)", name):
            if name not in [f"vgg{n}" for n in range(1, 9)]:
                problems.append(f"model.name is {name!r}; vggN has N = 1 to 8 blocks")
        elif re.fullmatch(r"resnet([0-9]+)", name):
            if name not in [f"resnet{6 * n + 2}" for n in range(1, 201)]:
                problems.append(f"model.name is {name!r}; resnetM has M = 6n+2 layers: resnet8, resnet14, resnet20 ...")
        elif not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
            problems.append(f"model.name is {name!r}; use vgg3, resnet20 (or other depths), or package.module:factory")
        if self.dropout is not None and not vgg:
            problems.append(f"model.dropout has no effect on {name!r}; it belongs to the vgg family")
        if self.options and not self.is_own:
            problems.append(f"model.options has no effect on {name!r}; it belongs to package.module:factory")
        return _consistent(problems, self)


class TrainingSettings(Settings):
    """What any training needs."""

    epochs: PositiveInt = 5
    """Passes over the training split."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Samples per step, at least 2 (batch norm needs them)."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer."""

    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Learning rate; the peak of it for the one_cycle and cosine schedules."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay: decoupled for adamw, an L2 term of the gradient for adam and sgd."""

    momentum: Fraction = 0.9
    """Momentum of sgd (Nesterov's form where it is not 0)."""

    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    """Course of the learning rate over all steps: constant; cosine, falling to 0; one_cycle, rising over the
    first 30% of the steps and falling to nearly 0."""

    early_stopping: PositiveInt | None = None
    """Epochs without a new best accuracy on the validation split after which training ends with the best
    parameters; needs a validation split. Default: train all epochs and keep the last parameters."""

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.optimizer != "sgd" and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError(f"momentum is {self.momentum}, but it has no effect on optimizer {self.optimizer!r}")
        return self


class CNNTrainingSettings(TrainingSettings):
    """What any training of CNNs needs."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32, or bf16: mixed precision by autocast, on devices that compute in bfloat16."""


class LocalSettings(CNNTrainingSettings):
    """Local phase: each subdomain's CNN is trained on its subimages, without messages."""


class AggregationSettings(TrainingSettings):
    """Aggregation: the DNN that is trained on the local CNNs' decisions."""

    epochs: PositiveInt = 10
    """Passes over the training split."""

    features: Literal["logits", "probabilities"] = "logits"
    """What the DNN sees of each local CNN: its logits, or their softmax (as in the papers)."""

    hidden: tuple[PositiveInt, ...] = (128, 64)
    """Units of the DNN's hidden layers."""

    dropout: Fraction = 0.0
    """Dropout rate after each hidden layer of the DNN."""

    placement: Literal["root", "distributed"] = "root"
    """Who trains the DNN: root, to which all local decisions are gathered; or all ranks together with one message
    per step, for decisions that don't fit on one rank."""


class CoherentSettings(CNNTrainingSettings):
    """Coherent phase: all local CNNs and the DNN are trained on as one model."""

    starts: tuple[Literal["transfer", "scratch"], ...] = ("transfer",)
    """Where it starts from: `transfer`, the trained local CNNs; `scratch`, their initial parameters. Both can be
    named, for two trainings one after the other; [] leaves the phase out."""

    features: Literal["logits", "probabilities", "penultimate"] | None = None
    """What the DNN sees of each local CNN: its logits, their softmax, or what comes into its last layer.
    Default: as aggregation.features."""

    dnn_start: Literal["trained", "fresh"] = "trained"
    """The DNN that a start by transfer begins with: that of the aggregation, or one with initial parameters."""

    parallelism: Literal["model", "data"] = "model"
    """`model`: each rank trains the CNNs of its subdomains, with one message of batch_size x hidden numbers per step.
    `data`: each rank trains a copy of the whole model on its share of every batch; gradients are averaged."""

    dropout_scale: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Factor, 0 to 1, on the dropout rates of the local CNNs while they are trained coherently."""

    @model_validator(mode="after")
    def _check_starts(self) -> Self:
        problems = []
        if len(set(self.starts)) < len(self.starts):
            problems.append(f"starts is {list(self.starts)}; name each start once")
        if self.dnn_start == "fresh" and self.starts == ("scratch",):
            problems.append("dnn_start has no effect on a start from scratch, whose DNN is always fresh")
        return _consistent(problems, self)


class BaselineSettings(CNNTrainingSettings):
    """Baseline: the global CNN on whole images, data-parallel over the same ranks."""

    enabled: bool = False
    """Whether it is trained, to compare with."""


class Config(Settings):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")] = "run"
    """Name of the run, in its results and in the default output folder."""

    output: str | None = None
    """Run directory, which must not exist yet or be empty; default: runs/NAME-K with the first free K."""

    seed: NonNegativeInt = 0
    """Seed of every random number; a subdomain's do not depend on the number of ranks."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where CNNs are trained: `auto` takes a GPU where the rank's host has one; `cuda` without a GPU is an error."""

    progress: Literal["auto", "live", "lines", "off"] = "auto"
    """How progress is shown: `live` redraws a table on the terminal, `lines` prints a line per epoch;
    `auto` is live where root can reach a terminal, else lines."""

    reduction: Literal["ordered", "fast"] = "ordered"
    """How the subdomains' summands of the DNN's first layer are added over the ranks: `ordered`, in fixed point,
    with the same bits on any number of ranks; `fast`, in floating point, equal to rounding with half the bytes."""

    shared_batches: Literal["exact", "fast"] = "exact"
    """Where ranks share each batch (replicas, data parallelism, baseline): `exact`, batch norm's statistics and
    dropout's masks are those of the whole batch, as on one rank; `fast`, each rank's own, as in PyTorch's
    DistributedDataParallel."""

    data: DataSettings = DataSettings()
    """The data set and its splits."""

    decomposition: DecompositionSettings = DecompositionSettings()
    """How an image is cut into subimages."""

    model: ModelSettings = ModelSettings()
    """The CNN family."""

    local: LocalSettings = LocalSettings()
    """Local phase: each subdomain's CNN is trained on its subimages, without messages."""

    aggregation: AggregationSettings = AggregationSettings()
    """Aggregation: the DNN that is trained on the local CNNs' decisions."""

    coherent: CoherentSettings = CoherentSettings()
    """Coherent phase: all local CNNs and the DNN are trained on as one model."""

    baseline: BaselineSettings = BaselineSettings()
    """Baseline: the global CNN on whole images, data-parallel over the same ranks."""

    @property
    def coherent_features(self) -> Literal["logits", "probabilities", "penultimate"]:
        """What the DNN sees in the coherent phase, the default resolved."""
        return self.coherent.features or self.aggregation.features

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        seen, wanted = self.aggregation.features, self.coherent_features
        # Logits are linear in the penultimate features, so that a DNN on logits is one on them as well.
        goes_on = "transfer" in self.coherent.starts and self.coherent.dnn_start == "trained"
        if goes_on and wanted not in (seen, {"logits": "penultimate"}.get(seen)):
            problems.append(
                f"coherent.features is {wanted!r}, but a start by transfer (coherent.starts) with coherent.dnn_start "
                f"'trained' goes on with a DNN that sees {seen} (aggregation.features); use coherent.dnn_start fresh, "
                "or like features"
            )
        if self.coherent.dropout_scale != 1 and self.model.name.startswith("resnet"):
            problems.append(f"coherent.dropout_scale has no effect on {self.model.name!r}, which has no dropout")
        return _consistent(problems, self)

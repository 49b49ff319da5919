"""The sections of the configuration other than the trainings: data, subimages, augmentation, CNNs, checkpoints, job.

See :mod:`hpcdd.config.schema` for the whole.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..core.files import expanded, unexpanded


def _file_name(text: str) -> str:
    try:
        valid = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        valid = False
    if not valid:
        raise PydanticCustomError("file_name", "this is not a valid file name")
    try:
        return expanded(text)
    except ValueError as error:
        raise PydanticCustomError("file_name", "{reason}", {"reason": str(error)}) from error


FileName = Annotated[str, Field(min_length=1), AfterValidator(_file_name), PlainSerializer(unexpanded)]
"""Of a file or folder; ``~`` and variables in it are resolved where it is read, so that records hold what was meant."""
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Interval = tuple[tuple[NonNegativeInt, ...], tuple[PositiveInt, ...]]


class Settings(BaseModel):
    """Base of all sections: frozen, and nothing but the documented fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


S = TypeVar("S", bound=Settings)


def consistent(problems: list[str], settings: S) -> S:
    """The settings, if no rule across their fields is broken; else every problem at once."""
    if problems:
        raise ValueError("; ".join(problems))
    return settings


class DataSettings(Settings):
    """The data set and its splits."""

    file: FileName = "embedded"
    """Path of a dataset file (written by `hpcdd prepare`), or `embedded`: 12,000 images of Fashion-MNIST."""

    validation_fraction: Fraction = 0.0
    """Fraction of the training split, in [0, 1), to set aside for validation, in proportion to the classes. Only
    for files without a validation split."""

    subset: Annotated[int, Field(ge=2)] | None = None
    """For quick trials: a number of samples of the training split, drawn with the seed, in proportion to the
    classes, before the validation fraction is taken from them. The other splits stay complete. Default: all."""

    classes: tuple[NonNegativeInt | str, ...] | None = None
    """For quick trials: use only these classes in all splits, given by name or by number (from 0; a name that looks
    like a number is taken as a name). They are renumbered in the order of the file. Default: all."""

    storage: Literal["auto", "memory", "device", "stream"] = "auto"
    """Where a rank stores its samples: `device`, with the CNNs; `memory`, in the host's memory, from which batches are
    copied to the device; `stream`, in the file, from which a thread reads shuffled blocks of samples. `auto`: the first
    of `device`, `memory`, `stream` for which the budget is enough. The results do not depend on this setting."""

    memory: PositiveInt | None = None
    """Budget of each rank for its samples in MiB, which `auto` uses to decide. Default: half of the free memory of the
    rank's node, and of its GPU, divided by the number of ranks that use it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.memory is not None and self.storage != "auto":
            problems.append(f"data.memory has no effect with data.storage {self.storage!r}; it belongs to auto")
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            problems.append(f"data.classes is {list(self.classes)}; name at least two classes, each once")
        return consistent(problems, self)


class DecompositionSettings(Settings):
    """How images are cut into subimages."""

    grid: tuple[PositiveInt, ...] | None = None
    """Subdomains along each spatial axis, e.g. [2,2]; default: 2 along every axis."""

    overlap: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    """Pixels by which a box extends into its neighbours: one number, or one per spatial axis."""

    uniform: bool = False
    """Makes all boxes of a grid as large as the largest one, so all local CNNs have the same shape and those of a rank
    can be trained together (`batched`)."""

    boxes: tuple[Interval, ...] | None = None
    """Explicit boxes instead of a grid, each as [[first pixel per axis], [one past the last pixel per axis]]."""

    coarse: bool = False
    """Adds a subdomain: the whole image, averaged in blocks of pixels down to the size of a subimage."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.boxes is not None:
            if self.grid is not None:
                problems.append("decomposition.boxes and decomposition.grid are both set; use one of them")
            if self.overlap not in (0, ()):
                problems.append("decomposition.overlap applies to a grid, but decomposition.boxes is set")
            if self.uniform:
                problems.append("decomposition.uniform applies to a grid, but decomposition.boxes is set")
            if not self.boxes:
                problems.append("decomposition.boxes is empty; name at least one box")
        return consistent(problems, self)


class AugmentationSettings(Settings):
    """Augmentation of the training images of all CNNs: a new version of every image in every epoch.

    It is drawn for the whole image, so that all subdomains see the same. The DNN is trained on outputs for the
    unchanged images.
    """

    flip: tuple[NonNegativeInt, ...] = ()
    """Spatial axes along which images are flipped, each with probability 1/2: [1] swaps left and right in 2D. A rank
    then also stores the flipped boxes of its subdomains."""

    translate: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    """Largest translation of an image in pixels, in both directions: one number, or one per spatial axis. The border is
    filled by reflection. A rank stores its boxes with a margin of that size."""

    alternate: bool = False
    """Whether the flips of a sample alternate from epoch to epoch instead of being drawn at random in each epoch: every
    image is then seen in each flip equally often. Needs flip."""

    cutout: NonNegativeInt = 0
    """Pixels along each axis of a square (a cube in 3D) that is cut out of every image at a random position. 0:
    none."""

    test_flip: bool = False
    """Whether each CNN's prediction for an image is the mean of its logits (or of the features the DNN uses) over the
    image and its flips, whenever a model is used, or evaluated on a split other than train. Needs flip;
    evaluation time grows with the number of flips."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.test_flip and not self.flip:
            problems.append("test_flip is true, but has no effect without flip")
        if len(set(self.flip)) < len(self.flip):
            problems.append(f"flip is {list(self.flip)}; name each axis once")
        if self.alternate and not self.flip:
            problems.append("alternate is true, but has no effect without flip")
        return consistent(problems, self)


def is_fast(name: str) -> bool:
    """Whether a name of a CNN is one of the fast family."""
    return name.startswith("fast") and ":" not in name


class ModelSettings(Settings):
    """The CNN family; all local CNNs and the global CNN are of one family."""

    name: str = "vgg3"
    """`vggN` with N blocks (vgg3), `resnetM` with M = 6n+2 layers (resnet20), `fastN` with N groups (fast3), which
    reaches an accuracy in a fraction of the time, or `package.module:factory` for a CNN of your own: called with
    input_shape, num_classes, width and model.options, it returns a torch.nn.Module."""

    width: Width = 32
    """Channels of the global CNN's first block."""

    local_width: Width | Literal["match"] = "match"
    """Channels of the local CNNs' first block; `match`: the largest for which all local CNNs together have
    at most the global CNN's parameters."""

    dropout: tuple[Fraction, Fraction] | None = None
    """VGG only: dropout rates after the first block and after the dense layer, interpolated linearly between them;
    default: [0.2, 0.5]."""

    channels: tuple[Width, ...] | None = None
    """fast only: channels of each group as multiples of the width; default: 1 for the first group, 4 for all others."""

    options: dict[str, JsonValue] = {}
    """Further keyword arguments of your own factory."""

    @property
    def has_user_factory(self) -> bool:
        """Whether the CNN comes from the user's factory."""
        return ":" in self.name

    @property
    def vgg_dropout(self) -> tuple[float, float]:
        """The dropout rates of a VGG, the default resolved."""
        return self.dropout or (0.2, 0.5)

    @property
    def fast_stages(self) -> int:
        """Of a fast CNN the number of its whitening and its groups; 0 of others."""
        return 1 + len(self.fast_channels) if is_fast(self.name) else 0

    @property
    def fast_channels(self) -> tuple[int, ...]:
        """Channels of the groups of a fast CNN in widths, the default resolved."""
        return self.channels or (1, *[4] * (int(self.name.removeprefix("fast")) - 1))

    @model_validator(mode="after")
    def _check(self) -> Self:
        name, problems = self.name, []
        if vgg := re.fullmatch(r"vgg([0-9]+)", name):
            if name not in [f"vgg{n}" for n in range(1, 9)]:
                problems.append(f"model.name is {name!r}; vggN has N = 1 to 8 blocks")
        elif re.fullmatch(r"resnet([0-9]+)", name):
            if name not in [f"resnet{6 * n + 2}" for n in range(1, 201)]:
                problems.append(f"model.name is {name!r}; resnetM has M = 6n+2 layers: resnet8, resnet14, resnet20 ...")
        elif fast := re.fullmatch(r"fast([0-9]+)", name):
            if name not in [f"fast{n}" for n in range(1, 9)]:
                problems.append(f"model.name is {name!r}; fastN has N = 1 to 8 groups")
            elif self.channels is not None and len(self.channels) != int(fast[1]):
                problems.append(
                    f"model.channels is {list(self.channels)}, but {name!r} has {fast[1]} groups; give one number for "
                    "each"
                )
        elif not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
            problems.append(
                f"model.name is {name!r}; use vgg3, resnet20, fast3 (or other depths), or package.module:factory"
            )
        if self.channels is not None and not name.startswith("fast"):
            problems.append(f"model.channels has no effect on {name!r}; it belongs to the fast family")
        if self.dropout is not None and not vgg:
            problems.append(f"model.dropout has no effect on {name!r}; it belongs to the vgg family")
        if self.options and not self.has_user_factory:
            problems.append(f"model.options has no effect on {name!r}; it belongs to package.module:factory")
        return consistent(problems, self)


class CheckpointSettings(Settings):
    """Checkpoints, from which a run that was stopped or killed is resumed (`--resume`)."""

    every: str = "5 minutes"
    """How often a checkpoint is written: `1 epoch`, `N epochs`, or `N minutes` (fractions are allowed). One is always
    written at the end of a training and when the job is asked to stop."""

    @property
    def epochs(self) -> int | None:
        """Epochs between two checkpoints, None where minutes count."""
        number, unit = self.every.split()
        return int(number) if unit.startswith("epoch") else None

    @property
    def minutes(self) -> float | None:
        """Minutes between two checkpoints, None where epochs count."""
        number, unit = self.every.split()
        return float(number) if unit.startswith("minute") else None

    @model_validator(mode="after")
    def _check_every(self) -> Self:
        match = re.fullmatch(r"(\d{1,9}) epochs?|(\d{1,9}(?:\.\d{1,9})?) minutes?", self.every, re.ASCII)
        if match is None or float(match[1] or match[2]) == 0:
            raise ValueError(f"every is {self.every!r}; write `1 epoch`, `5 epochs`, `10 minutes` or `0.5 minutes`")
        return self


class CommSettings(Settings):
    """How messages are sent."""

    gpu_aware: bool = False
    """Whether MPI sends directly from GPU memory in training steps (the sum over subdomains, gradients, batch norm of
    shared batches) instead of from copies in the host's memory. Needs GPUs and an MPI library built with CUDA."""


class RunSettings(Settings):
    """Supervision of a job, and what it writes besides its results."""

    stall_timeout: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds after which a rank that makes no progress (because a node, GPU or file system hangs) is reported and the
    job is ended so it can be resumed. Must be longer than the longest training step and the longest read. null:
    never."""

    report: bool = True
    """Whether a run ends by writing its report (report.html and figures/ in the run directory). In a study: whether the
    study writes a report; its runs don't."""

    survive: bool = False
    """Whether a job continues without ranks that have died; the other ranks load the lost subdomains from checkpoints.
    Needs Open MPI 5 in its fault-tolerant mode (ULFM, see docs/how-to/resume.md)."""

    tensorboard: bool = False
    """Whether loss, accuracy and learning rate of every epoch are also written for TensorBoard, into the folder
    tensorboard of the run directory. Needs the extra `tensorboard`."""

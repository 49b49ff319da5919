"""model.h5, HDF5: a trained model with everything that the prediction for a new image needs.

It is written when a run is complete.

Attributes of the file::

    hpcdd_model_format  int: version of the format, 1
    config              string: the configuration of the run, YAML
    name                string: name of the data set
    class_names         strings (K,): names of the classes 0 to K - 1
    mean                float (C,): mean of the training images per channel, in units of the stored values
    std                 float (C,): their standard deviation per channel, likewise
    image_shape         int (1 + axes,): shape of an image, (C, *spatial)
    dtype               string: dtype of the images' pixels, such as uint8
    preparation         string, optional: how an image file becomes such an image, as in the dataset file
    local_width         int: channels of the first block of the local CNNs

Groups and datasets::

    /boxes                       int64 (S, 2, axes): the box of each subdomain: the first pixel along each spatial axis,
                                 and one past the last; the coarse subdomain is the last one
    /blocks                      int64 (S, axes): pixels along each spatial axis that are averaged into one; 1 except
                                 for the coarse subdomain
    /local/0000, /local/0001...  groups: the local CNN of each subdomain; each parameter and buffer is a dataset with
                                 the name, shape and dtype of its entry in the module's state_dict
    /dnn                         group: the DNN, likewise
    /coherent_transfer           group, if it was trained: the coherent model by transfer; in it local/0000, ... and dnn
    /coherent_scratch            group, if it was trained: the coherent model from scratch, likewise
    /global                      group, if it was trained: the global CNN
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from ..config.loading import from_yaml, to_yaml
from ..config.schema import Config
from ..core.environment import no_room
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.hdf5 import damage_reported, first_fault, new_hdf5, open_hdf5, other_format, whole
from ..core.names import CLASSIFIERS, Start, coherent_phase
from ..core.texts import printable
from ..data.format import DatasetInfo
from ..data.prepare.image_transform import from_json
from ..decomposition.boxes import Box, Decomposition, Subdomain
from ..models.aggregators import RULES
from ..models.coherent_model import CoherentModel, prepare_cnn
from ..models.dnn import DNN
from ..models.penultimate import feature_widths
from ..models.registry import check_consent, template
from ..models.serialization import State, filled, write_state

FORMAT = 1


def write_model(
    path: Path,
    config: Config,
    info: DatasetInfo,
    decomposition: Decomposition,
    local_width: int,
    states: Iterable[tuple[str, State]],
) -> None:
    """Writes model.h5 atomically: under a temporary name, then renamed.

    Args:
        path: the file to make.
        config: the run's configuration.
        info: the data set that it was trained on.
        decomposition: its boxes.
        local_width: channels of the local CNNs' first block.
        states: place in the file (``local/0000``, ...) and ``state_dict`` of each network; consumed one at a time.

    Raises:
        OSError: it can't be written.
    """
    with atomic_write(path) as temporary, new_hdf5(temporary) as file:
        file.attrs["hpcdd_model_format"] = FORMAT
        file.attrs["config"] = to_yaml(config)
        file.attrs["name"] = info.name
        file.attrs["class_names"] = list(info.class_names)
        file.attrs["mean"], file.attrs["std"] = info.mean, info.std
        file.attrs["image_shape"], file.attrs["dtype"] = info.image_shape, info.dtype
        if info.preparation is not None:
            file.attrs["preparation"] = info.preparation.to_json()
        file.attrs["local_width"] = local_width
        subdomains = decomposition.subdomains
        file["boxes"] = np.array([(s.box.start, s.box.stop) for s in subdomains], np.int64)
        file["blocks"] = np.array([s.block for s in subdomains], np.int64)
        for folder, state in states:
            write_state(file.create_group(folder), state)


class ModelFile:
    """An open model file: its description, and its networks one at a time.

    Attributes:
        config: the configuration that the model was trained with.
        class_names: K names.
        image_shape: shape of an image, (C, *spatial).
        dtype: dtype of its pixels; None in a file that was written before it was recorded.
        preparation: how an image file becomes such an image; None without one in the data set.
        subdomains: what each local CNN sees.
        mean, std: (C,), in units of the stored values.
        local_width: channels of the local CNNs' first block.
        reading: a context for what reads of the file, or uses what it has read: that fails only if the file is damaged,
            and is reported so, as a UserError.
    """

    def __init__(self, file: h5py.File, config: Config, reading: Callable[[], AbstractContextManager[None]]) -> None:
        self._file, self.config, self.reading = file, config, reading
        self.class_names = tuple(printable(str(name)) for name in file.attrs["class_names"])
        self.image_shape = tuple(int(n) for n in file.attrs["image_shape"])
        dtype, preparation = (file.attrs.get(key) for key in ("dtype", "preparation"))
        self.dtype = None if dtype is None else str(dtype)
        self.preparation = None if preparation is None else from_json(str(preparation))
        axes = len(self.image_shape) - 1
        stored = whole(file["boxes"]), whole(file["blocks"])
        if [array.shape[1:] for array in stored] != [(2, axes), (axes,)]:
            raise ValueError(
                f"boxes {stored[0].shape} and blocks {stored[1].shape} do not fit images of shape {self.image_shape}"
            )
        boxes = [Box(tuple(map(int, a)), tuple(map(int, b))) for a, b in stored[0]]
        blocks = [tuple(map(int, block)) for block in stored[1]]
        self.subdomains = tuple(Subdomain(box, block) for box, block in zip(boxes, blocks, strict=True))
        self.mean, self.std = (tuple(float(v) for v in file.attrs[key]) for key in ("mean", "std"))
        self.local_width = int(file.attrs["local_width"])

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of all strategies of the model, as in results.json."""
        trained = {"dnn", *(coherent_phase(start) for start in self.config.coherent.starts)}
        if self.config.baseline.enabled:
            trained.add("global")
        return tuple(name for name in CLASSIFIERS if name in RULES or name in trained)

    def local_cnn(self, subdomain: int) -> nn.Module:
        """CNN_s after the local phase, in evaluation mode, as are all networks below."""
        return self._cnn(f"local/{subdomain:04d}", subdomain)

    def coherent_cnn(self, start: Start, subdomain: int) -> nn.Module:
        """CNN_s of a coherent model."""
        made = self._cnn(f"{coherent_phase(start)}/local/{subdomain:04d}", subdomain)
        return prepare_cnn(made, self.config.coherent_features, dropout_scale=1.0).eval()

    def global_cnn(self) -> nn.Module:
        """The global CNN."""
        with self.reading():
            made = template(self.config.model, self.image_shape, len(self.class_names), self.config.model.width)
            return filled(made, self._file["global"]).eval()

    def dnn_template(self, folder: str) -> DNN:
        """The DNN in a group, ``dnn`` or ``coherent_START/dnn``, without its parameters."""
        settings = self.config.aggregation if folder == "dnn" else self.config.coherent_dnn
        shapes = [(self.image_shape[0], *subdomain.shape) for subdomain in self.subdomains]
        num_classes = len(self.class_names)
        with self.reading(), torch.device("meta"):
            widths = feature_widths(self.config.model, shapes, num_classes, self.local_width, settings.features)
            return DNN(widths, settings.hidden, num_classes, settings.dropout)

    def dnn(self, folder: str) -> DNN:
        """The DNN in a group, see :meth:`dnn_template`."""
        made = self.dnn_template(folder)
        with self.reading():
            return filled(made, self._file[folder]).eval()

    def network(self, strategy: str) -> nn.Module | None:
        """The network of one of the strategies: the DNN, the global CNN or a coherent model; None for a rule."""
        for start in self.config.coherent.starts:
            if strategy == coherent_phase(start):
                cnns = [self.coherent_cnn(start, s) for s in range(len(self.subdomains))]
                return CoherentModel(cnns, self.dnn(f"{strategy}/dnn"), self.config.coherent_features).eval()
        if strategy == "global":
            return self.global_cnn()
        return self.dnn("dnn") if strategy == "dnn" else None

    def columns(self, folder: str, start: int, stop: int) -> torch.Tensor:
        """Columns of a DNN's first layer, (hidden, stop - start); only these are read."""
        with self.reading():
            return torch.from_numpy(self._file[f"{folder}/first.weight"][:, start:stop])

    def without_columns(self, folder: str) -> dict[str, torch.Tensor]:
        """The parameters of a DNN except its first layer's weight, by their torch names."""
        with self.reading():
            names = [name for name in self._file[folder] if name != "first.weight"]
            return {name: torch.from_numpy(np.array(self._file[f"{folder}/{name}"])) for name in names}

    def _cnn(self, folder: str, subdomain: int) -> nn.Module:
        shape = (self.image_shape[0], *self.subdomains[subdomain].shape)
        with self.reading():
            made = template(self.config.model, shape, len(self.class_names), self.local_width)
            return filled(made, self._file[folder]).eval()


@contextlib.contextmanager
def open_model(path: Path, user_factory: str | None = None) -> Iterator[ModelFile]:
    """Opens a model file for reading.

    Args:
        path: the file.
        user_factory: the ``package.module:factory`` that may be imported and called, for a model of the user's
            own; a file that names another one is refused, so that no file determines which code runs.

    Raises:
        UserError: not a model file of this format, or a damaged one, or one that asks for code or for other files; also
            where the ``with`` block can't read on.
    """
    what, wrong_file, remedy = "a model file (model.h5 of a run)", "name model.h5 of a run", "copy it again"

    def reading() -> AbstractContextManager[None]:
        return damage_reported(lambda reason: f"model file {path} is damaged ({reason}); {remedy}")

    with open_hdf5(path, str(path), what, wrong_file, remedy) as file:
        with reading():
            model = _checked(path, file, user_factory, reading)
        yield model


def _checked(
    path: Path, file: h5py.File, user_factory: str | None, reading: Callable[[], AbstractContextManager[None]]
) -> ModelFile:
    if fault := other_format(file, "hpcdd_model_format", FORMAT):
        raise UserError(f"{path} is not a model file of format {FORMAT} ({fault}); name model.h5 of a run")
    if fault := first_fault(file):
        raise UserError(f"{path}: {fault}; a model file must contain all of its data")
    config = from_yaml(str(file.attrs["config"]), str(path))
    try:
        check_consent(config.model, user_factory)
    except UserError as error:
        raise UserError(f"{path} needs code that is not allowed to run: {error}") from error
    model = ModelFile(file, config, reading)
    stored: list[int] = []
    file.visititems(lambda _, item: stored.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    if fault := no_room(2 * sum(stored)):  # as it is read, and in the networks
        raise UserError(f"{path} holds {sum(stored):,} bytes of parameters: {fault}; use a machine with more memory")
    if fault := no_room(4 * math.prod(model.image_shape)):
        raise UserError(f"{path} takes images of shape {model.image_shape}: {fault} for each; is the file damaged?")
    return model

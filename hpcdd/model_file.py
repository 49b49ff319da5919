"""model.h5: everything that a decision on a new image needs, written when a run is complete.

::

    /                 attributes hpcdd_model_format = 1, config (YAML), name, class_names, mean, std, image_shape,
                      dtype (of the stored pixels), local_width; preparation (JSON, see hpcdd.data.preparation), if the
                      data set has one
    /boxes            (S, 2, axes) int64: first pixel, and one past the last, of each subdomain's box
    /blocks           (S, axes) int64: pixels of it that are averaged to one
    /local/0000/...   parameters and buffers of CNN_0 by their torch names, and so on
    /dnn/...          those of the DNN
    /coherent_transfer/local/..., /coherent_transfer/dnn/...   those of the coherent model, if it was trained;
    /coherent_scratch/...                                      likewise
    /global/...       those of the global CNN, if it was trained
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from torch import nn

from .config import Config
from .configuration import from_yaml, to_yaml
from .data.format import DatasetInfo
from .data.preparation import Preparation, from_json
from .decisions import STRATEGIES
from .decomposition import Box, Decomposition, Subdomain
from .errors import UserError
from .files import written_whole
from .hdf5 import first_outside, new_hdf5, open_hdf5
from .models.aggregators import RULES
from .models.coherent import Coherent, Penultimate, prepare_cnn
from .models.dnn import DNN
from .models.registry import create
from .models.storage import State, read_state, write_state

FORMAT = 1


def write_model(
    path: Path,
    config: Config,
    info: DatasetInfo,
    decomposition: Decomposition,
    local_width: int,
    states: Iterable[tuple[str, State]],
) -> None:
    """Writes model.h5 under a temporary name and renames it when it is whole.

    Args:
        path: the file to make.
        config: the run's configuration.
        info: the data set that it was trained on.
        decomposition: its boxes.
        local_width: channels of the local CNNs' first block.
        states: place in the file (``local/0000``, ...) and ``state_dict`` of each network; taken one at a time.

    Raises:
        OSError: it can't be written.
    """
    with written_whole(path) as temporary, new_hdf5(temporary) as file:
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
        for place, state in states:
            write_state(file.create_group(place), state)


@dataclass(frozen=True)
class Model:
    """A trained model on one process.

    Attributes:
        config: the configuration that it was trained with.
        class_names: K names.
        image_shape: (C, *spatial) of the images that it takes.
        dtype: of their pixels; None in a file that was written before it was recorded.
        preparation: how a file of an image becomes such an image; None where the data set has none.
        subdomains: what each local CNN sees.
        mean, std: (C,), in units of the stored values.
        local_cnns: CNN_0 ... CNN_{S-1}, in evaluation mode.
        dnn: in evaluation mode.
        coherent: by start (``transfer``, ``scratch``) the coherent model, in evaluation mode.
        global_cnn: in evaluation mode; None where it was not trained.
    """

    config: Config
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    dtype: str | None
    preparation: Preparation | None
    subdomains: tuple[Subdomain, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    local_cnns: tuple[nn.Module, ...]
    dnn: DNN
    coherent: dict[str, Coherent]
    global_cnn: nn.Module | None

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names, as in results.json, of all that this model can decide by."""
        trained = {"dnn", *(f"coherent_{start}" for start in self.coherent)}
        if self.global_cnn is not None:
            trained.add("global")
        return tuple(name for name in STRATEGIES if name in RULES or name in trained)


def read_model(path: Path, own: str | None = None) -> Model:
    """Builds the networks and loads their parameters.

    Args:
        path: the file.
        own: the ``package.module:factory`` that may be imported and called, where the model is the user's own; a file
            that names another one is refused, so that no file decides what code runs.

    Raises:
        UserError: not a model file of this format, or a damaged one, or one that asks for code or for other files.
    """
    with open_hdf5(
        path, str(path), "a model file (model.h5 of a run)", "name model.h5 of a run", "copy it again"
    ) as file:
        try:
            return _read(path, file, own)
        except UserError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is damaged as a model file ({reason}); copy it again") from error


def _read(path: Path, file: h5py.File, own: str | None) -> Model:
    version = file.attrs.get("hpcdd_model_format")
    if np.ndim(version) or version != FORMAT:
        found = "no attribute hpcdd_model_format" if version is None else f"its format is {version}"
        raise UserError(f"{path} is not a model file of format {FORMAT} ({found}); name model.h5 of a run")
    if fault := first_outside(file):
        raise UserError(f"{path}: {fault}; a model file holds its data itself")
    config = from_yaml(str(file.attrs["config"]))
    if config.model.is_own and config.model.name != own:
        raise UserError(f"{path} asks for code: the CNN {config.model.name!r}; if you trust it, admit it by that name")
    names = tuple(str(name) for name in file.attrs["class_names"])
    image_shape = tuple(int(n) for n in file.attrs["image_shape"])
    boxes = [Box(tuple(map(int, a)), tuple(map(int, b))) for a, b in file["boxes"][:]]
    blocks = [tuple(map(int, block)) for block in file["blocks"][:]]
    subdomains = tuple(Subdomain(box, block) for box, block in zip(boxes, blocks, strict=True))
    width = int(file.attrs["local_width"])

    def cnns(folder: str) -> list[nn.Module]:
        made = [create(config.model, (image_shape[0], *s.shape), len(names), width) for s in subdomains]
        for s, cnn in enumerate(made):
            cnn.load_state_dict(read_state(file[f"{folder}/{s:04d}"]))
        return made

    def dnn(folder: str, widths: list[int]) -> DNN:
        made = DNN(widths, config.aggregation.hidden, len(names), config.aggregation.dropout)
        made.load_state_dict(read_state(file[folder]))
        return made

    coherent: dict[str, Coherent] = {}
    for start in config.coherent.starts:
        features, parts = config.coherent_features, cnns(f"coherent_{start}/local")
        prepared = [prepare_cnn(cnn, features, dropout_scale=1.0) for cnn in parts]
        widths = [c.classifier.in_features if isinstance(c, Penultimate) else len(names) for c in prepared]
        coherent[start] = Coherent(prepared, dnn(f"coherent_{start}/dnn", widths), features).eval()
    global_cnn = None
    if config.baseline.enabled:
        global_cnn = create(config.model, image_shape, len(names), config.model.width).eval()
        global_cnn.load_state_dict(read_state(file["global"]))
    local = tuple(cnn.eval() for cnn in cnns("local"))
    combine = dnn("dnn", [len(names)] * len(local)).eval()
    mean, std = (tuple(float(v) for v in file.attrs[key]) for key in ("mean", "std"))
    dtype, preparation = (file.attrs.get(key) for key in ("dtype", "preparation"))
    return Model(
        config,
        names,
        image_shape,
        None if dtype is None else str(dtype),
        None if preparation is None else from_json(str(preparation)),
        subdomains,
        mean,
        std,
        local,
        combine,
        coherent,
        global_cnn,
    )

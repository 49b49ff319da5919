"""model.h5: everything that a decision on a new image needs, written when a run is complete.

::

    /                 attributes hpcdd_model_format = 1, config (YAML), name, class_names, mean, std, image_shape,
                      local_width
    /boxes            (S, 2, axes) int64: first pixel, and one past the last, of each box
    /local/0000/...   parameters and buffers of CNN_0 by their torch names, and so on
    /dnn/...          those of the DNN
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from .config import Config
from .configuration import from_yaml, to_yaml
from .data.format import DatasetInfo
from .data.samples import Samples
from .decomposition import Box, Decomposition
from .errors import UserError
from .files import written_whole
from .models.dnn import DNN, create_dnn
from .models.registry import create
from .models.storage import State, read_state, write_state

FORMAT = 1


def write_model(
    path: Path,
    config: Config,
    info: DatasetInfo,
    decomposition: Decomposition,
    local_width: int,
    local_states: Iterable[State],
    dnn: nn.Module,
) -> None:
    """Writes model.h5 under a temporary name and renames it when it is whole.

    Args:
        path: the file to make.
        config: the run's configuration.
        info: the data set that it was trained on.
        decomposition: its boxes.
        local_width: channels of the local CNNs' first block.
        local_states: the ``state_dict`` of CNN_0, CNN_1, ...; taken one at a time.
        dnn: the trained DNN.
    """
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["hpcdd_model_format"] = FORMAT
        file.attrs["config"] = to_yaml(config)
        file.attrs["name"] = info.name
        file.attrs["class_names"] = list(info.class_names)
        file.attrs["mean"], file.attrs["std"] = info.mean, info.std
        file.attrs["image_shape"] = info.image_shape
        file.attrs["local_width"] = local_width
        file["boxes"] = np.array([(box.start, box.stop) for box in decomposition.boxes], np.int64)
        for s, state in enumerate(local_states):
            write_state(file.create_group(f"local/{s:04d}"), state)
        write_state(file.create_group("dnn"), dnn.state_dict())


@dataclass(frozen=True)
class Model:
    """A trained model on one process.

    Attributes:
        config: the configuration that it was trained with.
        class_names: K names.
        image_shape: (C, *spatial) of the images that it takes.
        boxes: S boxes.
        mean, std: (C,), in units of the stored values.
        local_cnns: CNN_0 ... CNN_{S-1}, in evaluation mode.
        dnn: in evaluation mode.
    """

    config: Config
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    boxes: tuple[Box, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    local_cnns: tuple[nn.Module, ...]
    dnn: DNN

    def local_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The local decisions, float32 (n, S, K), on images (n, C, *spatial) as they are stored in a dataset file."""
        labels = torch.zeros(len(images), dtype=torch.int64)
        logits = []
        with torch.inference_mode():
            for box, cnn in zip(self.boxes, self.local_cnns, strict=True):
                subimages = images[box.index]
                inputs, _ = Samples.of_images(subimages, labels, self.mean, self.std, "cpu").batch(slice(None))
                logits.append(cnn(inputs))
        return torch.stack(logits, dim=1)


def read_model(path: Path) -> Model:
    """Builds the networks and loads their parameters.

    Raises:
        UserError: not a model file of this format, or a damaged one.
    """
    try:
        return _read(path)
    except UserError:
        raise
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be read as a model file: {error}") from error


def _read(path: Path) -> Model:
    with h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("hpcdd_model_format") != FORMAT:
            raise UserError(f"{path} is not a model file of format {FORMAT}")
        config = from_yaml(str(file.attrs["config"]))
        names = tuple(str(name) for name in file.attrs["class_names"])
        image_shape = tuple(int(n) for n in file.attrs["image_shape"])
        boxes = tuple(Box(tuple(map(int, a)), tuple(map(int, b))) for a, b in file["boxes"][:])
        cnns = []
        for s, box in enumerate(boxes):
            cnn = create(config.model, (image_shape[0], *box.shape), len(names), int(file.attrs["local_width"]))
            cnn.load_state_dict(read_state(file[f"local/{s:04d}"]))
            cnns.append(cnn.eval())
        dnn = create_dnn(config.aggregation, len(boxes), len(names))
        dnn.load_state_dict(read_state(file["dnn"]))
        mean, std = (tuple(float(v) for v in file.attrs[key]) for key in ("mean", "std"))
    return Model(config, names, image_shape, boxes, mean, std, tuple(cnns), dnn.eval())

"""What is to be solved: data set, splits, boxes and widths, derived and checked before any work. No messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from . import environment, run_directory
from .config import Config
from .data.format import DatasetInfo, inspect, resolve
from .data.reading import BoxReader
from .data.samples import Samples
from .data.split import Indices, split_rows
from .decomposition import Decomposition
from .errors import UserError
from .models.registry import check_own
from .models.width import Widths, match_widths
from .phases.gather import bytes_on_root, check_memory


@dataclass(frozen=True)
class Problem:
    """The same on every rank.

    Attributes:
        info: the data set.
        rows: which stored rows make up each split of the run, see :func:`hpcdd.data.split.split_rows`.
        decomposition: the boxes.
        widths: of the CNNs, and their parameters.
        root_bytes: memory that gather and aggregation will take on root.
        root_available: memory that was free on root when this was found out, bytes.
    """

    info: DatasetInfo
    rows: dict[str, tuple[str, Indices | None]]
    decomposition: Decomposition
    widths: Widths
    root_bytes: int
    root_available: int

    @property
    def samples(self) -> dict[str, int]:
        """Number of samples of each split of the run."""
        return {
            split: len(self.info.labels[stored]) if rows is None else len(rows)
            for split, (stored, rows) in self.rows.items()
        }

    def labels(self, split: str) -> torch.Tensor:
        """int64 (n,) of one split of the run."""
        stored, rows = self.rows[split]
        labels = self.info.labels[stored]
        return torch.from_numpy(labels if rows is None else labels[rows])

    def subimage_shape(self, subdomain: int) -> tuple[int, ...]:
        """(C, *spatial) of one subdomain's subimages."""
        return (self.info.image_shape[0], *self.decomposition.boxes[subdomain].shape)

    def read(self, reader: BoxReader, subdomains: Iterable[int], device: str) -> dict[int, dict[str, Samples]]:
        """The samples of some subdomains by split, on ``device``; reads the boxes of these subdomains and no others.

        Raises:
            UserError: the file is damaged.
        """
        labels = {split: self.labels(split) for split in self.rows}
        samples: dict[int, dict[str, Samples]] = {}
        for s in subdomains:
            box = self.decomposition.boxes[s]
            stored = {name: reader.read(name, box) for name in dict.fromkeys(name for name, _ in self.rows.values())}
            samples[s] = {
                split: Samples.of_images(
                    torch.from_numpy(stored[name] if rows is None else stored[name][rows]),
                    labels[split],
                    self.info.mean,
                    self.info.std,
                    device,
                )
                for split, (name, rows) in self.rows.items()
            }
        return samples


def pose(config: Config) -> Problem:
    """Reads what the data set says of itself and derives the rest.

    Raises:
        UserError: data set, configuration and this machine do not go together.
    """
    run_directory.check_output(config.output)
    info = inspect(resolve(config.data.file))
    rows = split_rows(info, config.data.validation_fraction, config.seed)
    for section, settings in (("local", config.local), ("aggregation", config.aggregation)):
        if settings.early_stopping is not None and "validation" not in rows:
            raise UserError(
                f"{section}.early_stopping needs a validation split, and {info.path} has none; "
                "set data.validation_fraction"
            )
    try:
        decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from error
    shapes = [(info.image_shape[0], *box.shape) for box in decomposition.boxes]
    widths = match_widths(config.model, info.image_shape, shapes, info.num_classes)
    check_own(config.model, shapes, info.num_classes, widths.local_width)
    # A validation split is taken from the training split or from the file, so that the sum over the file is right.
    needed = bytes_on_root(sum(info.samples.values()), len(decomposition), info.num_classes)
    available = environment.available_memory()
    check_memory(needed, available)
    return Problem(info, rows, decomposition, widths, needed, available)

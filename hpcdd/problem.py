"""What is to be solved: data set, splits, boxes and widths, derived and checked before any work. No messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from . import environment, run_directory
from .config import Config
from .data.augmentation import Augmentation, AugmentedSamples, Region
from .data.format import DatasetInfo, inspect, resolve
from .data.reading import BoxReader
from .data.samples import Samples
from .data.split import Indices, split_rows
from .decomposition import Box, Decomposition, Subdomain
from .errors import UserError
from .mesh import Mesh
from .models.coherent import check_features
from .models.registry import check_own, create
from .models.width import Widths, match_widths
from .settings import ModelSettings

PIECE_BYTES = 64 << 20
"""Bytes of one gathered piece on root; the least piece is one sample of all subdomains."""


def bytes_on_root(samples: int, num_subdomains: int, num_classes: int) -> int:
    """Memory that gather and aggregation take on root: all logits, a copy as the DNN's features, two pieces."""
    logits = 4 * samples * num_subdomains * num_classes
    return 2 * logits + 2 * min(logits, PIECE_BYTES)


def check_memory(needed: int, available: int) -> None:
    """Refuses a gather that root has no room for, before any training.

    Raises:
        UserError: with both numbers.
    """
    if needed > available:
        raise UserError(
            f"root needs {needed / 2**30:.1f} GiB for all local decisions, but {available / 2**30:.1f} GiB "
            "are free there; use fewer subdomains or samples, or more memory on the first node"
        )


@dataclass(frozen=True)
class Problem:
    """The same on every rank.

    Attributes:
        info: the data set.
        model: the CNN family.
        rows: which stored rows make up each split of the run, see :func:`hpcdd.data.split.split_rows`.
        decomposition: the boxes.
        augmentation: of the training split, where CNNs are trained on it; None without.
        widths: of the CNNs, and their parameters.
        root_bytes: memory that gather and aggregation will take on root; 0 where nothing is gathered.
        root_available: memory that was free on root when this was found out, bytes.
    """

    info: DatasetInfo
    model: ModelSettings
    rows: dict[str, tuple[str, Indices | None]]
    decomposition: Decomposition
    augmentation: Augmentation | None
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
        return (self.info.image_shape[0], *self.decomposition.subdomains[subdomain].shape)

    def read(self, reader: BoxReader, subdomains: Iterable[int], device: str) -> dict[int, dict[str, Samples]]:
        """The samples of some subdomains by split, on ``device``; reads the boxes of these subdomains and no others.

        Raises:
            UserError: the file is damaged.
        """
        return {s: self._read(reader, self.decomposition.subdomains[s], device) for s in subdomains}

    def read_whole(self, reader: BoxReader, device: str) -> dict[str, Samples]:
        """The whole images by split, on ``device``.

        Raises:
            UserError: the file is damaged.
        """
        image = self.info.image_shape[1:]
        return self._read(reader, Subdomain(Box((0,) * len(image), image), (1,) * len(image)), device)

    def _read(self, reader: BoxReader, subdomain: Subdomain, device: str) -> dict[str, Samples]:
        found: dict[str, Samples] = {}
        if self.augmentation is not None:
            found["train"] = self._read_augmented(reader, subdomain, self.augmentation, device)
        by_name: dict[str, list[str]] = {}  # splits that are parts of the same stored split are read together
        for split, (name, _) in self.rows.items():
            if split not in found:
                by_name.setdefault(name, []).append(split)
        block = subdomain.block if subdomain.is_coarse else None
        for name, splits in by_name.items():
            parts = reader.read_rows(name, subdomain.box, [self.rows[split][1] for split in splits], block)
            for split, images in zip(splits, parts, strict=True):
                found[split] = Samples.of_images(
                    torch.from_numpy(images), self.labels(split), self.info.mean, self.info.std, device
                )
        return {split: found[split] for split in self.rows}

    def _read_augmented(
        self, reader: BoxReader, subdomain: Subdomain, augmentation: Augmentation, device: str
    ) -> Samples:
        name, rows = self.rows["train"]
        read: dict[Region, torch.Tensor] = {}
        regions = augmentation.regions(subdomain.box, self.info.image_shape[1:])
        for region in regions:
            if region not in read:
                (images,) = reader.read_rows(name, region.box, [rows], padding=region.padding)
                read[region] = torch.from_numpy(images).to(device)
        plain = Samples.of_images(read[regions[0]], self.labels("train"), self.info.mean, self.info.std, device)
        return AugmentedSamples(
            plain.inputs,
            plain.labels,
            plain.mean,
            plain.std,
            augmentation=augmentation,
            regions=tuple(read[region] for region in regions),
            block=subdomain.block,
        )


def pose(config: Config) -> Problem:
    """Reads what the data set says of itself and derives the rest.

    Raises:
        UserError: data set, configuration and this machine do not go together.
    """
    run_directory.check_output(config.output)
    info = inspect(resolve(config.data.file))
    rows = split_rows(info, config.data.validation_fraction, config.seed)
    for section, settings in (
        ("local", config.local),
        ("aggregation", config.aggregation),
        ("coherent", config.coherent),
        ("baseline", config.baseline),
    ):
        if settings.early_stopping is not None and "validation" not in rows:
            raise UserError(
                f"{section}.early_stopping needs a validation split, and {info.path} has none; "
                "set data.validation_fraction"
            )
    try:
        decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
        augmentation = Augmentation.from_settings(config.augmentation, info.image_shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from error
    shapes = [(info.image_shape[0], *subdomain.shape) for subdomain in decomposition.subdomains]
    widths = match_widths(config.model, info.image_shape, shapes, info.num_classes)
    check_own(config.model, shapes, info.num_classes, widths.local_width)
    if config.coherent.starts and config.coherent_features == "penultimate":
        check_features(create(config.model, shapes[0], info.num_classes, widths.local_width), config.model.name)
    # A validation split is taken from the training split or from the file, so that the sum over the file is right.
    gathered = config.aggregation.placement == "root"
    needed = bytes_on_root(sum(info.samples.values()), len(decomposition), info.num_classes) if gathered else 0
    available = environment.available_memory()
    check_memory(needed, available)
    return Problem(info, config.model, rows, decomposition, augmentation, widths, needed, available)


def check_shares(config: Config, problem: Problem, mesh: Mesh) -> None:
    """Refuses batches that have too few samples for the ranks that share them.

    Raises:
        UserError: naming the batch size and the number of ranks.
    """
    workers = sum(1 for place in mesh.places if place.subdomains)
    sharing = {
        "local": mesh.replicas,
        "coherent": (workers if config.coherent.parallelism == "data" else mesh.replicas)
        if config.coherent.starts
        else 1,
        "baseline": workers if config.baseline.enabled else 1,
    }
    least = 1 if config.shared_batches == "exact" else 2  # batch norm needs two
    for section, ranks in sharing.items():
        size = min(getattr(config, section).batch_size, problem.samples["train"])
        if ranks > 1 and size < least * ranks:
            raise UserError(
                f"{section}.batch_size is {size}, but {ranks} ranks share each batch; use {least * ranks} or more"
            )

"""What is to be solved: data set, splits, boxes and widths, derived and checked before any work. No messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..config.schema import Config
from ..config.sections import ModelSettings
from ..core import environment
from ..core.errors import UserError
from ..decomposition.boxes import Box, Decomposition, Subdomain
from ..decomposition.rank_layout import RankLayout, RankPlacement
from ..models.penultimate import check_features, feature_widths
from ..models.registry import check_allowed, check_user_factory, create, draws_of_user_factory
from ..models.width import Widths, match_widths
from .augmentation import Augmentation
from .format import DatasetInfo, inspect, resolve
from .reading import BoxReader
from .sample_loading import Loader, Where, bytes_in_memory
from .sample_order import blocks_in_window
from .samples import Subimages
from .split import Indices, count_samples, labels_of, split_rows
from .subset import with_classes

GATHER_BYTES = 64 << 20
"""Bytes of outputs that root gathers at once; at least those of one sample of all subdomains."""


def bytes_on_root(samples: int, inputs: int) -> int:
    """Memory that gather and aggregation take on root: the DNN's inputs from all subdomains, and two buffers."""
    features = 4 * samples * inputs
    return features + 2 * min(features, GATHER_BYTES)


def check_memory(needed: int, available: int) -> None:
    """Refuses a gather that root has no room for, before any training.

    Raises:
        UserError: with both numbers.
    """
    if needed > available:
        raise UserError(
            f"root needs {needed / 2**30:.1f} GiB for the outputs of all local CNNs, but only {available / 2**30:.1f} "
            "GiB are free there; use fewer subdomains or samples, or more memory on the first node"
        )


def check_classes(info: DatasetInfo, rows: Mapping[str, tuple[str, Indices | None]]) -> None:
    """Refuses classes that no network could learn.

    Raises:
        UserError: naming these classes, and the setting that leaves them out.
    """
    present = set(labels_of(info, rows["train"]).tolist())
    missing = [name for number, name in enumerate(info.class_names) if number not in present]
    if missing:
        raise UserError(
            f"{len(missing)} of {info.num_classes} classes have no training samples in {info.path}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}; no model can learn them, so make the file "
            "again with samples of them" + (", or name all other classes in data.classes" if len(present) > 1 else "")
        )


def check_parameters(config: Config, widths: Widths, dnns: Sequence[Sequence[int]], available: int) -> None:
    """Refuses networks that have more parameters than memory; each is made in the host's memory.

    Args:
        config: of the run.
        widths: of its CNNs.
        dnns: of each of its DNNs the inputs and the units of all layers.
        available: bytes.

    Raises:
        UserError: naming the network, both numbers, and the setting.
    """
    of_dnns = [sum((a + 1) * b for a, b in itertools.pairwise(units)) for units in dnns]
    networks = [
        ("a local CNN", max(widths.local_parameters), "model.local_width or model.width"),
        ("the DNN", max(of_dnns), "aggregation.hidden"),
    ]
    if config.baseline.enabled:
        networks.append(("the global CNN", widths.global_parameters, "model.width"))
    for network, parameters, setting in networks:
        if 4 * parameters > available:
            raise UserError(
                f"{network} has {parameters:,} parameters, which alone take {4 * parameters / 2**30:,.1f} GiB, but "
                f"{available / 2**30:.1f} GiB are free; use a smaller {setting}"
            )


def check_images(config: Config, image_shape: Sequence[int], shapes: Sequence[Sequence[int]], available: int) -> None:
    """Refuses images of which not a single one has room in memory, in float32; `plan` says what a training takes.

    Raises:
        UserError: with both numbers.
    """
    seen = [*shapes, image_shape] if config.baseline.enabled else shapes
    largest = max(seen, key=math.prod)
    if (needed := 4 * math.prod(largest)) > available:
        raise UserError(
            f"a single image of shape {tuple(largest)} takes {needed / 2**30:,.1f} GiB in a CNN, but "
            f"{available / 2**30:.1f} GiB are free; use more subdomains (decomposition.grid) or smaller images"
        )


def check_filters(config: Config, cnn: torch.nn.Module) -> None:
    """Refuses optimizer muon where the user's own CNN has no filters, whose steps are all that it is.

    Raises:
        UserError: naming the settings.
    """
    if any(p.ndim > 2 for p in cnn.parameters()):
        return
    trained = {"local": True, "coherent": bool(config.coherent.starts), "baseline": config.baseline.enabled}
    if sections := [name for name, used in trained.items() if used and getattr(config, name).optimizer == "muon"]:
        raise UserError(
            f"optimizer 'muon' ({', '.join(sections)}) acts only on the filters of convolutions, but the CNN of "
            f"{config.model.name!r} has none; use sgd or adamw"
        )


def grouped(shapes: Mapping[int, tuple[int, ...]]) -> list[list[int]]:
    """Subdomains in one list for each shape of their subimages, (C, *spatial); in the order of ``shapes``."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for s, shape in shapes.items():
        groups.setdefault(shape, []).append(s)
    return list(groups.values())


@dataclass(frozen=True)
class Problem:
    """What is to be solved, the same on every rank.

    Attributes:
        info: the data set.
        model: the CNN family.
        rows: which stored rows make up each split of the run, see :func:`hpcdd.data.split.split_rows`.
        decomposition: the boxes.
        augmentation: of the training split, where CNNs are trained on it; None without.
        widths: of the CNNs, and their parameters.
        root_bytes: memory that gather and aggregation will take on root; 0 where nothing is gathered.
        root_available: memory that was free on root at that time, bytes.
        blocks: of the order in which trainings visit the samples, see :func:`hpcdd.data.sample_order.order_of`.
        draws: what draws random numbers in the user's own local CNN, see
            :func:`hpcdd.models.registry.draws_of_user_factory`; empty for hpcdd's families.
    """

    info: DatasetInfo
    model: ModelSettings
    rows: dict[str, tuple[str, Indices | None]]
    decomposition: Decomposition
    augmentation: Augmentation | None
    widths: Widths
    root_bytes: int
    root_available: int
    blocks: int
    draws: tuple[str, ...] = ()

    @property
    def samples(self) -> dict[str, int]:
        """Number of samples of each split of the run."""
        return count_samples(self.info, self.rows)

    def labels(self, split: str) -> torch.Tensor:
        """int64 (n,) of one split of the run."""
        return torch.from_numpy(labels_of(self.info, self.rows[split]))

    def subimage_shape(self, subdomain: int) -> tuple[int, ...]:
        """(C, *spatial) of one subdomain's subimages."""
        return (self.info.image_shape[0], *self.decomposition.subdomains[subdomain].shape)

    @property
    def subimage_shapes(self) -> list[tuple[int, ...]]:
        """:meth:`subimage_shape` of all S subdomains."""
        return [self.subimage_shape(s) for s in range(len(self.decomposition))]

    def by_shape(self, subdomains: Iterable[int] | None = None) -> list[list[int]]:
        """Some subdomains, default all, in one list for each shape of their subimages."""
        chosen = range(len(self.decomposition)) if subdomains is None else subdomains
        return grouped({s: self.subimage_shape(s) for s in chosen})

    def feature_widths(self, features: str) -> list[int]:
        """Features that the DNN sees of every local CNN, S numbers.

        Args:
            features: ``logits``, ``probabilities`` or ``penultimate``.
        """
        width = self.widths.local_width
        return feature_widths(self.model, self.subimage_shapes, self.info.num_classes, width, features)

    def read(
        self, reader: BoxReader, subdomains: Iterable[int], device: str, where: Where = "device"
    ) -> dict[int, dict[str, Subimages]]:
        """The samples of some subdomains by split; reads the boxes of these subdomains and no others.

        Args:
            reader: of the dataset file.
            subdomains: which.
            device: where batches are wanted.
            where: samples are kept; default: on ``device``.

        Raises:
            UserError: the file is damaged.
        """
        loader = self._loader(reader, device, where)
        return {s: loader.load(self.decomposition.subdomains[s]) for s in subdomains}

    def read_whole(self, reader: BoxReader, device: str, where: Where = "device") -> dict[str, Subimages]:
        """The whole images by split; arguments as for :meth:`read`.

        Raises:
            UserError: the file is damaged.
        """
        return self._loader(reader, device, where).load(self._whole)

    def bytes_of(self, subdomains: Iterable[int]) -> int:
        """Bytes that the samples of some subdomains take where they are not streamed."""
        every = self.decomposition.subdomains
        return sum(bytes_in_memory(self.info, self.samples, every[s], self.augmentation) for s in subdomains)

    def bytes_of_whole(self) -> int:
        """Bytes that the whole images take where they are not streamed."""
        return bytes_in_memory(self.info, self.samples, self._whole, self.augmentation)

    @property
    def _whole(self) -> Subdomain:
        image = self.info.image_shape[1:]
        return Subdomain(Box((0,) * len(image), image), (1,) * len(image))

    def _loader(self, reader: BoxReader, device: str, where: Where) -> Loader:
        return Loader(self.info, self.rows, self.augmentation, reader, device, where, self.blocks)


def build_problem(config: Config) -> Problem:
    """Reads what the data set says of itself and derives the rest; a factory of the user's own is imported and tried.

    Raises:
        UserError: data set, configuration and this machine are incompatible.
    """
    check_allowed(config.model)
    info = with_classes(inspect(resolve(config.data.file)), config.data.classes)
    rows = split_rows(info, config.data.validation_fraction, config.seed, config.data.subset)
    check_classes(info, rows)
    for section, settings in (
        ("local", config.local),
        ("aggregation", config.aggregation),
        ("coherent", config.coherent),
        ("baseline", config.baseline),
    ):
        if settings.early_stopping is not None and "validation" not in rows:
            raise UserError(
                f"{section}.early_stopping needs a validation split, but {info.path} has none; set "
                "data.validation_fraction"
            )
    try:
        decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
        augmentation = Augmentation.from_settings(config.augmentation, info.image_shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from error
    shapes = [(info.image_shape[0], *subdomain.shape) for subdomain in decomposition.subdomains]
    widths = match_widths(config.model, info.image_shape, shapes, info.num_classes)
    available = environment.available_memory()
    check_user_factory(config.model, shapes, info.num_classes, widths.local_width)
    dnns = {"aggregation": config.aggregation}
    if config.coherent.starts:
        dnns["coherent"] = config.coherent_dnn
    if config.model.has_user_factory:
        cnn = create(config.model, shapes[0], info.num_classes, widths.local_width)
        for section, dnn in dnns.items():
            if dnn.features == "penultimate":
                check_features(cnn, config.model.name, f"{section}.features")
        check_filters(config, cnn)
    inputs = {
        section: sum(feature_widths(config.model, shapes, info.num_classes, widths.local_width, dnn.features))
        for section, dnn in dnns.items()
    }
    units = [[inputs[section], *dnn.hidden, info.num_classes] for section, dnn in dnns.items()]
    check_parameters(config, widths, units, available)
    check_images(config, info.image_shape, shapes, available)
    draws = draws_of_user_factory(config.model, shapes, info.num_classes, widths.local_width)
    if draws and config.coherent.starts and config.coherent.dropout_scale != 1:
        raise UserError(
            f"coherent.dropout_scale is {config.coherent.dropout_scale}, but the CNN of {config.model.name!r} draws "
            f"its own random numbers ({', '.join(draws)}), which this setting can't scale; use modules "
            "(torch.nn.Dropout and the like) instead of functions, or leave it at 1"
        )
    samples = sum(count_samples(info, rows).values())
    gathered = config.aggregation.placement == "root"
    needed = bytes_on_root(samples, inputs["aggregation"]) if gathered else 0
    check_memory(needed, available)
    blocks = blocks_in_window(info.num_classes)
    return Problem(info, config.model, rows, decomposition, augmentation, widths, needed, available, blocks, draws)


def check_rank(config: Config, problem: Problem, placement: RankPlacement) -> None:
    """Refuses what one rank can't do; to be called in an agreement (:meth:`hpcdd.mpi.communicator.Comm.on_all`) before
    any work.

    Raises:
        UserError: the user's own CNN can't be built there, or does not give logits.
    """
    shapes = [problem.subimage_shape(s) for s in placement.subdomains]
    check_user_factory(config.model, shapes, problem.info.num_classes, problem.widths.local_width)


def check_shards(config: Config, problem: Problem, layout: RankLayout) -> None:
    """Refuses batches that the ranks can't share: of too few samples, or where random numbers can't be shared exactly.

    Raises:
        UserError: naming the batch size and the number of ranks, or what draws the numbers.
    """
    workers = sum(1 for placement in layout.placements if placement.subdomains)
    if fault := problem_of_shards(config, problem, workers, layout.replicas):
        raise UserError(fault)


def problem_of_shards(config: Config, problem: Problem, workers: int, replicas: int) -> str:
    """What is wrong where ranks share batches that can't be shared; empty where nothing is.

    Args:
        config, problem: of the run.
        workers: ranks that own subdomains.
        replicas: ranks that train copies of one subdomain's CNN.
    """
    sharing = {
        "local": replicas,
        "coherent": (workers if config.coherent.parallelism == "data" else replicas) if config.coherent.starts else 1,
        "baseline": workers if config.baseline.enabled else 1,
    }
    least = 1 if config.shared_batches == "exact" else 2  # batch norm needs two
    for section, ranks in sharing.items():
        size = getattr(config, section).batch_of(problem.samples["train"])
        if ranks > 1 and size < least * ranks:
            return f"{section}.batch_size is {size}, but {ranks} ranks share each batch; use {least * ranks} or more"
    if problem.draws and config.shared_batches == "exact" and max(sharing.values()) > 1:
        return (
            f"shared_batches is 'exact', but the CNN of {config.model.name!r} draws its own random numbers "
            f"({', '.join(problem.draws)}), which would be the same on all ranks that share a batch; use modules "
            "(torch.nn.Dropout and the like, on rows of the batch) instead of functions, or set shared_batches to fast"
        )
    return ""

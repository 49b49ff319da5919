"""The problem of an evaluation: a trained model, and a split of a data set that fits it. No messages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..artifacts.model_file import ModelFile
from ..config import loading
from ..config.schema import Config
from ..config.sections import CommSettings
from ..core.errors import UserError
from ..data.augmentation import Augmentation
from ..data.format import DatasetInfo, inspect, resolve
from ..data.problem import Problem
from ..data.split import split_rows
from ..data.subset import with_classes
from ..decomposition.boxes import Decomposition
from ..models.width import match_widths
from ..runs.run_directory import RunDirectory
from .evaluate_request import EvaluateRequest


def build_evaluation_problem(request: EvaluateRequest, model: ModelFile) -> tuple[Config, Problem]:
    """The run's configuration as the evaluation needs it, and the problem, with one split.

    Raises:
        UserError: the data set is not there, or does not fit the model.
    """
    config = model.config
    known = RunDirectory(request.run).config
    if known.exists():  # there the path of the data set is absolute
        config = config.model_copy(update={"data": loading.from_yaml(known.read_text("utf-8"), str(known)).data})
    path = resolve(config.data.file if request.data is None else request.data)
    try:
        info = inspect(path)
    except UserError as error:
        if request.data is None and not path.exists():
            raise UserError(f"the data set of the run is gone: {error}, with --data FILE") from error
        raise
    is_training_data = path.absolute() == resolve(config.data.file).absolute()
    fraction, subset = (config.data.validation_fraction, config.data.subset) if is_training_data else (0.0, None)
    info = with_classes(info, config.data.classes) if is_training_data else info
    _check(info, model)
    rows = split_rows(info, fraction, config.seed, subset)
    if request.split not in rows:
        raise UserError(f"--split is {request.split!r}, but {path} has no such split; it has {', '.join(rows)}")
    spatial = model.image_shape[1:]
    try:
        decomposition = Decomposition.from_settings(config.decomposition, spatial)
        augmentation = Augmentation.from_settings(config.augmentation, spatial)
    except ValueError as error:
        raise UserError(f"{request.run} is damaged: {error}") from error
    if decomposition.subdomains != model.subdomains:
        raise UserError(f"{request.run} is damaged: its boxes do not match its configuration; copy it again")
    with model.reading():
        widths = match_widths(
            config.model.model_copy(update={"local_width": model.local_width}),
            model.image_shape,
            [(model.image_shape[0], *subdomain.shape) for subdomain in model.subdomains],
            len(model.class_names),
        )
    info = dataclasses.replace(info, mean=model.mean, std=model.std)  # images are normalised as in the training
    one = {request.split: rows[request.split]}
    problem = Problem(info, config.model, one, decomposition, augmentation, widths, 0, 0, 0)
    settings = config.model_copy(
        update={
            "device": request.device,
            "data": config.data.model_copy(update={"storage": "auto", "memory": None}),
            "comm": CommSettings(),  # this MPI library need not be that of the training
            # A rank holds samples of its own subdomains, however the model was trained.
            "coherent": config.coherent.model_copy(update={"parallelism": "model"}),
        }
    )
    return settings, problem


def check_output(folder: Path | None) -> None:
    """Makes the folder.

    Raises:
        UserError: it is the directory of a run, whose files would be overwritten, or can't be made.
    """
    if folder is None:
        return
    if RunDirectory(folder).model.exists() or RunDirectory(folder).config.exists():
        raise UserError(f"--output is {folder}, which is a run directory; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output is {folder}, which can't be created: {error.strerror}") from error


def _check(info: DatasetInfo, model: ModelFile) -> None:
    """Refuses a data set of other images or classes than the model's."""
    faults = []
    if info.image_shape != model.image_shape:
        faults.append(
            f"{info.path} has images of shape {list(info.image_shape)}, but the model takes {list(model.image_shape)}"
        )
    if model.dtype not in (None, info.dtype):
        faults.append(f"{info.path} stores its pixels as {info.dtype}, but the model takes {model.dtype}")
    if info.class_names != model.class_names:
        faults.append(
            f"{info.path} has the classes {_some(info.class_names)}, but the model knows {_some(model.class_names)}"
        )
    if faults:
        raise UserError(
            "; ".join(faults) + "; make the file from images like the training images, with the same "
            "classes in the same order"
        )


def _some(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''} ({len(names)})"

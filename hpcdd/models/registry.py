"""Builds the CNN that a configuration names: of one of hpcdd's families, or from the user's factory."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..config.sections import ModelSettings, is_fast
from ..core.errors import UserError
from .batch_norm import accurate
from .fast import Fast
from .random_modules import foreign_draws
from .resnet import ResNet
from .vgg import VGG

Factory = Callable[..., nn.Module]
_FOREIGN_FILES = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), importlib.__file__ or "", "<frozen")
"""Prefixes of the names of files that do not belong to the user's code, for tracebacks."""


MODULES = "HPCDD_MODEL_MODULES"
"""Environment variable: the modules and packages, with commas, whose code a configuration may name; unset: any."""


def check_allowed(settings: ModelSettings) -> None:
    """Refuses a user's factory that the environment does not allow; for commands that train.

    Raises:
        UserError: :data:`MODULES` is set, and does not name the module of the user's factory.
    """
    listed = os.environ.get(MODULES)
    if settings.has_user_factory and listed is not None and not _is_listed(settings, listed):
        raise UserError(
            f"model.name is {settings.name!r}, but {MODULES} is {listed!r} and allows no other module; add it there, "
            "separated by a comma, if you trust it"
        )


def check_consent(settings: ModelSettings, user_factory: str | None) -> None:
    """Refuses a user's factory that was not allowed by name; for commands that read files that others may have written.

    Args:
        settings: ``model`` section of the configuration.
        user_factory: ``package.module:factory`` that may be imported and called; None for none.

    Raises:
        UserError: the configuration names another factory, and :data:`MODULES` does not name its module.
    """
    check_allowed(settings)
    if settings.has_user_factory and MODULES not in os.environ and settings.name != user_factory:
        raise UserError(
            f"model.name is {settings.name!r}, whose code would run here; if you trust it, allow it with --own "
            f"{settings.name} (hpcdd.load: own={settings.name!r}), or its module in the variable {MODULES}"
        )


def _is_listed(settings: ModelSettings, listed: str) -> bool:
    module = settings.name.partition(":")[0]
    return any(f"{module}.".startswith(f"{name.strip()}.") for name in listed.split(",") if name.strip())


def create(settings: ModelSettings, input_shape: Sequence[int], num_classes: int, width: int) -> nn.Module:
    """Builds the CNN that ``settings`` name, with parameters drawn from torch's global random state.

    Args:
        settings: ``model`` section of the configuration.
        input_shape: (C, *spatial) of one subimage, or of the image for the global CNN.
        num_classes: K.
        width: channels of the first block.

    Returns:
        A module that maps float (n, C, *spatial) to logits (n, K); its batch norm layers are accurate
        (:mod:`hpcdd.models.batch_norm`).

    Raises:
        UserError: the user's factory can't be imported or does not return such a module, or the images are too small.
    """
    if match := re.fullmatch(r"vgg(\d+)", settings.name):
        network: nn.Module = VGG(int(match[1]), input_shape, num_classes, width, settings.vgg_dropout)
    elif match := re.fullmatch(r"resnet(\d+)", settings.name):
        network = ResNet((int(match[1]) - 2) // 6, input_shape, num_classes, width)
    elif is_fast(settings.name):
        try:
            network = Fast(input_shape, num_classes, width, settings.fast_channels)
        except ValueError as error:
            raise UserError(
                f"model.name is {settings.name!r}, but the CNNs see {error}; use larger subimages"
            ) from error
    else:
        network = _call_user_factory(settings.name, settings.options, input_shape, num_classes, width)
    return accurate(network)


def _call_user_factory(
    name: str, options: Mapping[str, Any], input_shape: Sequence[int], num_classes: int, width: int
) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    try:
        imported = _imported(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise UserError(
            f"model.name is {name!r}, but it can't be imported ({_summary(error)}); "
            f"start where {module_name!r} lies, or put its folder on PYTHONPATH of all ranks (Open MPI: `mpirun -x "
            "PYTHONPATH`)"
        ) from error
    factory: Factory | None = getattr(imported, attribute, None)
    if factory is None:
        raise UserError(
            f"model.name is {name!r}, but {getattr(imported, '__file__', None) or module_name} has no {attribute!r}; "
            "check the name after the colon, and that no other module has the same name as yours"
        )
    if not callable(factory):
        raise UserError(f"model.name is {name!r}, which is a {type(factory).__name__}; it must be a function")
    arguments = f"input_shape {tuple(input_shape)}, num_classes, width and model.options {dict(options)}"
    with _reported(f"model.name is {name!r}; calling it with {arguments} fails"):
        module = factory(input_shape=tuple(input_shape), num_classes=num_classes, width=width, **options)
    if not isinstance(module, nn.Module):
        raise UserError(f"model.name is {name!r}, which returns a {type(module).__name__}, not a torch.nn.Module")
    if any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        raise UserError(f"model.name is {name!r}, which has lazy layers; set their sizes from input_shape")
    return module


def _imported(name: str) -> ModuleType:
    """A module of the user's: from the working folder, too, if nothing else has its name."""
    if not sys.flags.safe_path and (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def count_parameters(settings: ModelSettings, input_shape: Sequence[int], num_classes: int, width: int) -> int:
    """Number of trainable parameters of :func:`create`'s CNN; hpcdd's own families are counted without memory."""
    module = template(settings, input_shape, num_classes, width)
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def template(settings: ModelSettings, input_shape: Sequence[int], num_classes: int, width: int) -> nn.Module:
    """:func:`create`'s CNN without memory, on device ``meta``; a user's CNN, which may not work there, on the CPU."""
    with torch.device("cpu" if settings.has_user_factory else "meta"):
        return create(settings, input_shape, num_classes, width)


def check_user_factory(settings: ModelSettings, shapes: Sequence[Sequence[int]], num_classes: int, width: int) -> None:
    """Calls a user's CNN on two empty images of every shape, before ranks rely on it.

    Args:
        settings: ``model`` section of the configuration; hpcdd's own families need no check.
        shapes: (C, *spatial) of its inputs.
        num_classes: K.
        width: channels of its first block.

    Raises:
        UserError: it can't be built, or does not return two rows of K logits.
    """
    if not settings.has_user_factory:
        return
    for shape in dict.fromkeys((2, *shape) for shape in shapes):
        network = create(settings, shape[1:], num_classes, width).eval()
        fault = f"model.name is {settings.name!r}, which fails on a batch of shape {shape}"
        with _reported(fault), torch.inference_mode():
            logits = network(torch.zeros(shape))
        returned = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if returned != (2, num_classes):
            raise UserError(
                f"model.name is {settings.name!r}, which maps a batch of shape {shape} to {returned}; it must return "
                f"logits of shape {(2, num_classes)}"
            )


def draws_of_user_factory(
    settings: ModelSettings, shapes: Sequence[Sequence[int]], num_classes: int, width: int
) -> tuple[str, ...]:
    """What draws random numbers in a user's CNN where hpcdd can neither share nor scale them.

    Args:
        settings, shapes, num_classes, width: as for :func:`check_user_factory`.

    Raises:
        UserError: it fails in training mode.
    """
    if not settings.has_user_factory:
        return ()
    draws: set[str] = set()
    for shape in dict.fromkeys((7, *shape) for shape in shapes):
        network = create(settings, shape[1:], num_classes, width)
        with _reported(f"model.name is {settings.name!r}, which fails in training mode on a batch of shape {shape}"):
            draws.update(foreign_draws(network, torch.zeros(shape)))
    return tuple(sorted(draws))


@contextlib.contextmanager
def _reported(fault: str) -> Iterator[None]:
    """Turns any exception of the user's code in the ``with`` block into a UserError: the fault, and the exception."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserError(f"{fault}: {_summary(error)}") from error


def _summary(error: BaseException) -> str:
    """An exception of the user's code and the innermost line of it: a traceback in one line."""
    text = f"{type(error).__name__}: {error}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_FOREIGN_FILES):
            return f"{text}; {frame.filename}:{frame.lineno}"
    return text

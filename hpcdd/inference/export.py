"""``hpcdd export``: a trained model as one graph for other programs, from stored pixels to probabilities."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.errors import UserError
from ..core.files import atomic_write, write_bytes, writing
from .classifier import Classifier
from .load import load

TOLERANCE = 1e-5
"""The most by which a probability of the graph may differ from the model's own."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INPUT, _OUTPUT = "images", "probabilities"

Array = npt.NDArray[Any]


def run(run: Path, out: Path, strategy: str | None = None, user_factory: str | None = None) -> None:
    """Exports a model, compares the graph with it, and prints a summary.

    Args:
        run: directory of a complete run, or its model.h5.
        out: file to make, ``.onnx`` or ``.pt2``.
        strategy: the strategy that makes the predictions; None for the best one that was trained.
        user_factory: the user's factory that may be called, see :func:`hpcdd.models.registry.check_consent`.

    Raises:
        UserError: no such model or strategy, another kind of file, or a graph whose probabilities differ.
        WriteError: the file can't be written.
    """
    kind = out.suffix.lower()
    if kind not in (".onnx", ".pt2"):
        raise UserError(f"{out} is neither ONNX nor an exported program of PyTorch; name a file .onnx or .pt2")
    if kind == ".onnx" and (missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]):
        raise UserError(
            f"ONNX needs {', '.join(missing)}, which are not installed; run `pip install '.[export]'` in a checkout of "
            "hpcdd"
        )
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"{out} is a folder, or its folder does not exist; name a file in a folder that exists")
    model = load(run, strategy, user_factory)
    difference = (to_onnx if kind == ".onnx" else to_pt2)(model, out)
    shape = ", ".join(map(str, model.image_shape))
    print(
        f"{out}: {model.strategy}, {model.dtype} {_INPUT} (n, {shape}) to float64 {_OUTPUT} "
        f"(n, {len(model.classes)}), {out.stat().st_size:,} bytes\n"
        f"  largest difference from the model's own probabilities: {difference:.1e}"
    )


def to_onnx(model: Classifier, path: Path) -> float:
    """Writes an ONNX file, whose metadata name the classes; checked with onnxruntime before it gets its name.

    Args:
        model: on the CPU; what its strategy does not need is taken out of it.
        path: of the file.

    Returns:
        The largest difference from the model's own probabilities.

    Raises:
        UserError: the model can't be exported, or the graph differs by more than :data:`TOLERANCE`.
        WriteError: the file can't be written.
    """
    import onnxruntime

    program = _exported(model)
    with _by("torch.onnx.export"):
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=({0: "n"},),
        )
    assert made is not None
    made.model.metadata_props.update(_description(model))
    with writing(path), atomic_write(path) as temporary:
        made.save(str(temporary))
        with _by("onnxruntime"):
            context = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])

        def graph(images: Array) -> Array:
            with _by("onnxruntime"):
                return np.asarray(context.run([_OUTPUT], {_INPUT: images})[0])

        return _checked(model, graph)


def to_pt2(model: Classifier, path: Path) -> float:
    """Writes an exported program for ``torch.export.load``; arguments and errors as for :func:`to_onnx`."""
    buffer, program = io.BytesIO(), _exported(model)
    with _by("torch.export"):
        torch.export.save(program, buffer, extra_files=_description(model))
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
    with torch.inference_mode():
        difference = _checked(model, lambda images: np.asarray(loaded(torch.from_numpy(images)).numpy()))
    with writing(path):
        write_bytes(path, buffer.getvalue())
    return difference


def _exported(model: Classifier) -> torch.export.ExportedProgram:
    if model.dtype is None:
        raise UserError(
            "the model file does not state the dtype of its images, because an older hpcdd wrote it; train again"
        )
    if not model.combines:
        model.local = nn.ModuleList()  # torch exports also what nothing uses
    example = torch.from_numpy(_examples(model, 2))
    batch = torch.export.Dim("n", min=1)
    with _by("torch.export"):
        return torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=False)


def _checked(model: Classifier, graph: Callable[[Array], Array]) -> float:
    """The largest difference between the probabilities of a graph and of its model, over batches of several sizes.

    Raises:
        UserError: it is more than :data:`TOLERANCE`.
    """
    difference = 0.0
    for count in (1, 3, min(16, model.rows + 1)):
        images = _examples(model, count)
        expected, answer = model.predict_proba(images), graph(images)
        difference = max(difference, float(np.abs(answer - expected).max()))
    if not difference <= TOLERANCE:  # not: NaN compares false
        raise UserError(
            f"the exported graph differs from the model by {difference:.1e}, but only {TOLERANCE:g} is allowed; "
            "not written"
        )
    return difference


def _examples(model: Classifier, count: int) -> Array:
    """Noise (n, C, *spatial) with mean, standard deviation and dtype of the data set's pixels."""
    mean, std = (np.asarray(values) for values in (model.subimages.mean, model.subimages.std))
    noise = mean + std * np.random.default_rng(count).standard_normal((count, *model.image_shape))
    dtype = np.dtype(model.dtype)
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        noise = np.clip(np.rint(noise), limits.min, limits.max)
    return noise.astype(dtype)


def _description(model: Classifier) -> dict[str, str]:
    return {"classes": json.dumps(model.classes), "strategy": model.strategy, "dtype": str(model.dtype)}


@contextlib.contextmanager
def _by(exporter: str) -> Iterator[None]:
    """Silences an exporter, whose warnings and lines do not concern the user, and reports its errors.

    Raises:
        UserError: the exporter raised an exception, which may be of any kind.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # around it are only hints for the exporter's developers
            cause = cause.__cause__
        reason = repr(cause) if isinstance(cause, LookupError) else f"{cause}".strip() or repr(cause)
        raise UserError(f"this model can't be exported by {exporter}: {reason.splitlines()[0]}") from error
    finally:
        logging.disable(before)

"""``hpcdd.load``: a trained model as an ordinary torch module."""

from __future__ import annotations

from pathlib import Path

from ..artifacts.model_file import open_model
from ..core.errors import UserError
from ..runs.run_directory import RunDirectory
from .classifier import Classifier


def load(path: str | Path, strategy: str | None = None, own: str | None = None) -> Classifier:
    """Loads a model from the directory of a complete run, or from its model.h5.

    Args:
        path: path of the directory or the file.
        strategy: the strategy that makes the predictions, named as in results.json; default: the coherent model (by
            transfer, else from scratch), or the DNN without such a model.
        own: for a model with CNNs of your own, the ``package.module:factory`` that may be imported and called. It is
            not needed if the environment variable HPCDD_MODEL_MODULES lists the module; if the variable is set, no
            other module is imported.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        UserError: the model does not exist, is incomplete or damaged, or was not trained for the strategy.
    """
    with open_model(model_of(Path(path)), own) as file:
        return Classifier(file, strategy)


def model_of(path: Path) -> Path:
    """The model.h5 of a run directory; any other path as it is.

    Raises:
        UserError: the folder is not a run, or its run is not complete.
    """
    try:
        if not path.is_dir():
            return path
        condition = RunDirectory(path).condition()
    except OSError as error:  # too long a name, for one
        raise UserError(f"{path} can't be a run: {error.strerror}") from error
    if condition in ("begun", "unfinished"):
        raise UserError(f"{path} is an unfinished run; resume it with `hpcdd train --resume --output {path}`")
    model = RunDirectory(path).model
    if not model.exists():  # a run that was copied without its checkpoints is one
        raise UserError(f"{path} is a folder without model.h5; name a run directory")
    return model

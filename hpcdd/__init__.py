"""hpcdd: image classifiers trained by domain decomposition over MPI.

The method is that of A. Klawonn, M. Lanser and J. Weber, "Model Parallel Training and Transfer Learning
for Convolutional Neural Networks by Domain Decomposition", arXiv 2408.14442. Everything that the commands do
can also be done from Python:

>>> import hpcdd
>>> hpcdd.Decomposition.grid((32, 32), (2, 2), overlap=4).boxes[0].shape
(20, 20)
>>> config = hpcdd.Config.load(overrides={"local.epochs": 2})
>>> run = hpcdd.train(config)  # doctest: +SKIP
>>> run.results.accuracy["test"].dnn  # doctest: +SKIP
>>> hpcdd.evaluate(run.directory, split="train").accuracy.majority  # doctest: +SKIP
>>> model = hpcdd.load(run.directory)  # doctest: +SKIP

Importing this package imports neither torch nor MPI: each name is imported when it is first used.
"""

TYPE_CHECKING = False  # as of `typing`, which imports much: this file is read before hpcdd.__main__ mends the path
if TYPE_CHECKING:
    from .artifacts.evaluation_file import Evaluation as Evaluation
    from .artifacts.results import Results as Results
    from .config.schema import Config as Config
    from .core.errors import CollectiveError as CollectiveError
    from .core.errors import UserError as UserError
    from .data.prepare.conversion import prepare as prepare
    from .decomposition.boxes import Decomposition as Decomposition
    from .inference.evaluate import evaluate as evaluate
    from .inference.load import load as load
    from .runs.training_run import TrainingRun as TrainingRun
    from .runs.training_run import train as train

__version__ = "0.1.0"
_PLACES = {
    "CollectiveError": "core.errors",
    "Config": "config.schema",
    "Decomposition": "decomposition.boxes",
    "Evaluation": "artifacts.evaluation_file",
    "Results": "artifacts.results",
    "TrainingRun": "runs.training_run",
    "UserError": "core.errors",
    "evaluate": "inference.evaluate",
    "load": "inference.load",
    "prepare": "data.prepare.conversion",
    "train": "runs.training_run",
}
__all__ = ["__version__", *_PLACES]  # noqa: PLE0604 - keys are texts


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'hpcdd' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})

"""hpcdd: image classifiers trained by domain decomposition over MPI.

The method is that of A. Klawonn, M. Lanser and J. Weber, "Model Parallel Training and Transfer Learning
for Convolutional Neural Networks by Domain Decomposition", arXiv 2408.14442. Importing this package
imports neither torch nor MPI.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as of `typing`, which imports much: this file is read before hpcdd.__main__ mends the path
if TYPE_CHECKING:
    from pathlib import Path

    from .inference.classifier import Classifier

__version__ = "0.1.0"


def load(path: str | Path, strategy: str | None = None, own: str | None = None) -> Classifier:
    """A trained model as a torch module; see :func:`hpcdd.inference.load.load`.

    >>> model = load("runs/quickstart-001")  # doctest: +SKIP
    >>> model.predict_proba(images)  # doctest: +SKIP
    """
    from .inference.load import load as _load

    return _load(path, strategy, own)

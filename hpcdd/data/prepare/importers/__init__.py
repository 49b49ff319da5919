"""Readers of data sets as their publishers ship them: one file a kind, each from a path to labelled images.

The module of a kind holds ``SUMMARY`` (what it reads), ``EXAMPLES`` (commands), ``add_arguments(parser)`` (declares the
options of this kind) and ``read(source, pool, **options)``, which gives an :class:`image_source.ImageSource` or raises
UserError where the source is not what it should be.
"""

from __future__ import annotations

from . import cifar10, cifar100, faces, folder, idx, nifti, npy, npz, phantom

IMPORTERS = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "faces": faces,
    "folder": folder,
    "idx": idx,
    "nifti": nifti,
    "npy": npy,
    "npz": npz,
    "phantom": phantom,
}
"""By kind."""
FILE_PER_IMAGE = frozenset({"faces", "folder", "nifti"})
"""Kinds of which a bad file is one image, and which threads decode."""
WITHOUT_SOURCE = frozenset({"phantom"})
"""Kinds that compute their images."""

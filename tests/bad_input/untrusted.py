"""Data sets for ``hpcdd prepare`` that try to run code, or to reach what is outside of them."""

from __future__ import annotations

import io
import pickle
import tarfile
from typing import Any

from ..data.prepare.importers.sources import tar_bytes, zip_bytes
from .row import CODE, Row, text
from .sources import ARRAYS, CIFAR, IMAGES, PNG, files, npy, preparing


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (CODE,)


CIFAR_FILES = dict.fromkeys([*CIFAR, "test_batch", "batches.meta"], pickle.dumps(Evil(), protocol=2))


def tar_link(kind: bytes, target: str) -> bytes:
    """An archive of images that are links to a file outside."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("a/0.png", "b/0.png"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    return made.getvalue()


UNTRUSTED = [
    Row(
        "pickle in an array: npy",
        preparing("npy"),
        "source/labels.npy holds object, not numbers; pickled objects are never loaded, so save it as plain numbers",
        files({**ARRAYS, "labels.npy": npy([Evil()] * 8)}),
    ),
    Row(
        "pickle in an array: npz",
        preparing("npz"),
        "source: labels.npy holds object, not numbers; pickled objects are never loaded, so save it as plain numbers",
        text(zip_bytes({**ARRAYS, "labels.npy": npy([Evil()] * 8)}), "source"),
    ),
    Row(
        "pickle that runs code",
        preparing("cifar10"),
        "source/batches.meta is not a batch of a CIFAR Python archive: it asks for __builtin__.exec, which a CIFAR "
        "batch does not need; don't trust it",
        files(CIFAR_FILES),
    ),
    Row(
        "pickle that runs code, in an archive",
        preparing("cifar10"),
        "source/batches.meta is not a batch of a CIFAR Python archive: it asks for __builtin__.exec, which a CIFAR "
        "batch does not need; don't trust it",
        text(tar_bytes(CIFAR_FILES), "source"),
    ),
    Row(
        "tar member that leads outside",
        preparing("folder"),
        "source has a member named '..', which points outside the archive; don't trust it",
        text(tar_bytes({"ran.png": PNG, "../ran": PNG}), "source"),
    ),
    Row(
        "tar member of an absolute path",
        preparing("folder"),
        "source has a member named '/tmp', which points outside the archive; don't trust it",
        text(tar_bytes({**IMAGES, "/tmp/ran.png": PNG}), "source"),
    ),
    Row(
        "zip member that leads outside",
        preparing("folder"),
        "source has a member named 'a/../../ran', which points outside the archive; don't trust it",
        text(zip_bytes({**IMAGES, "a/../../ran": PNG}), "source"),
    ),
    Row(
        "symbolic links in a tar",
        preparing("folder"),
        "source/a/0.png is a symbolic link to ../../good.h5, which points outside the archive; pack it again with "
        "links followed (tar --dereference); repair or remove it, or skip bad files with --skip-bad",
        text(tar_link(tarfile.SYMTYPE, "../../good.h5"), "source"),
    ),
    Row(
        "hard links in a tar",
        preparing("folder"),
        "source/a/0.png is a hard link to /etc/passwd, which is not in the archive; pack it again with links followed "
        "(tar --dereference); repair or remove it, or skip bad files with --skip-bad",
        text(tar_link(tarfile.LNKTYPE, "/etc/passwd"), "source"),
    ),
]

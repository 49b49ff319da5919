"""Reading subimages: a rank reads the boxes that it owns, and nothing else of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..decomposition import Box
from ..errors import UserError
from .format import open_dataset

Array = npt.NDArray[Any]


@dataclass
class BoxReader:
    """Reads boxes of one dataset file.

    Attributes:
        path: the file.
        bytes_read: bytes of pixels that this reader has asked HDF5 for so far.
    """

    path: Path
    bytes_read: int = 0

    def read(self, split: str, box: Box) -> Array:
        """The subimages of one split.

        Args:
            split: ``train``, ``validation`` or ``test``.
            box: which pixels of each image.

        Returns:
            Array (n, C, *box.shape) of the stored dtype.

        Raises:
            UserError: the file is damaged there, or a pixel is NaN or infinite.
        """
        with open_dataset(self.path) as file:
            images = file[split]["images"]
            subimages: Array = np.empty((*images.shape[:2], *box.shape), images.dtype)
            images.read_direct(subimages, np.s_[:, :, *box.slices])
        self.bytes_read += subimages.nbytes
        if subimages.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(subimages).all(axis=tuple(range(1, subimages.ndim))))
            if bad.size:
                raise UserError(
                    f"data.file: {self.path}: {split}/images[{bad[0]}] has a pixel that is NaN or infinite "
                    f"({bad.size} such images in box {list(box.start)} to {list(box.stop)}); mend or drop them"
                )
        return subimages

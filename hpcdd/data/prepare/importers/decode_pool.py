"""Sources with a file per image: decoded by threads, in order; what to do about bad files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError
from ...writing import LeaveOut, Split
from .file_tree import ArchiveReader

Array = npt.NDArray[Any]
Decoder = Callable[[bytes, str], Array]
"""From the content of a file, and its name for messages, to an image (C, *spatial); raises UserError."""
_BLOCK_BYTES = 1 << 23
_GROUP = 16
"""Small images that are decoded as one task, which makes tasks cheap."""
_GROUP_BYTES = 1 << 20
_SHOWN = 5


@dataclass
class DecodePool:
    """How a source is read.

    Attributes:
        skip_bad: whether bad files are left out and counted; else the first one is an error.
        threads: that decode.
        seed: of what is drawn, where a kind draws its images.
        bad: what was wrong with each bad file so far.
        reports: give notes on the images when all have been read; empty for none.
    """

    skip_bad: bool = False
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    seed: int = 0
    bad: list[str] = field(default_factory=list)
    reports: list[Callable[[], str]] = field(default_factory=list)

    def collect(self, tree: ArchiveReader, files: Sequence[str], labels: Sequence[int], decode: Decoder) -> Split:
        """Images of one shape from files; all but the first are decoded when they are asked for.

        Args:
            tree: where the files are.
            files: names, n of them.
            labels: n numbers.
            decode: makes an image of a file.

        Raises:
            UserError: there is no good file; here or on reading, the first bad one, unless ``skip_bad`` is set.
        """
        shape, dtype = self._first(tree, files, decode)

        def fitting(content: bytes, where: str) -> Array:
            image = decode(content, where)
            if image.shape != shape:
                option = "--grey or --rgb" if image.shape[1:] == shape[1:] else "--size"
                raise UserError(
                    f"{where} has the shape {image.shape}, but the first one has {shape} (channels first); make them "
                    f"equal with {option}"
                )
            return image

        def rows(indices: npt.NDArray[np.int64], leave_out: LeaveOut) -> Iterator[Array]:
            size = int(np.prod(shape)) * dtype.itemsize
            per_block = max(1, _BLOCK_BYTES // size)
            block: list[Array] = []
            for position, image in enumerate(self.images(tree, [files[i] for i in indices], size, fitting)):
                if isinstance(image, UserError):
                    self.bad.append(str(image))
                    leave_out(position)
                    continue
                block.append(image)
                if len(block) == per_block:
                    yield np.stack(block)
                    block = []
            if block:
                yield np.stack(block)

        return Split(np.asarray(labels, np.int64), shape, str(dtype), rows)

    def notes(self) -> list[str]:
        """What is to be said when all has been read."""
        return [note for note in (*(report() for report in self.reports), self.report()) if note]

    def report(self) -> str:
        """Which files were left out; empty for none."""
        if not self.bad:
            return ""
        more = f"; and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
        return f"skipped {len(self.bad)} bad files: {'; '.join(self.bad[:_SHOWN])}{more}"

    def _first(
        self, tree: ArchiveReader, files: Sequence[str], decode: Decoder
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        for name in files:
            image = self._image(tree, name, decode)
            if not isinstance(image, UserError):
                return image.shape, image.dtype
        raise UserError(f"{tree.path}: none of {len(files)} files can be read; the last error: {image}")

    def _image(self, tree: ArchiveReader, name: str, decode: Decoder) -> Array | UserError:
        try:
            return decode(tree.read(name), tree.where(name))
        except UserError as error:
            if self.skip_bad:
                return error
            raise UserError(f"{error}; repair or remove it, or skip bad files with --skip-bad") from error

    def images(
        self, tree: ArchiveReader, files: Sequence[str], size: int, decode: Decoder
    ) -> Iterator[Array | UserError]:
        """Images in the order of the files, some of them decoded ahead.

        Args:
            tree: where the files are.
            files: names.
            size: bytes of an image; small ones are decoded several at a time.
            decode: makes an image of a file.

        Yields:
            The image; or what is wrong with its file, if ``skip_bad`` is set.

        Raises:
            UserError: a bad file, unless ``skip_bad`` is set.
        """
        group = max(1, min(_GROUP, _GROUP_BYTES // size))
        waiting: deque[Future[list[Array | UserError]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:

            def task(names: Sequence[str]) -> list[Array | UserError]:
                return [self._image(tree, name, decode) for name in names]

            try:
                for start in range(0, len(files), group):
                    waiting.append(pool.submit(task, files[start : start + group]))
                    if len(waiting) > 2 * self.threads:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

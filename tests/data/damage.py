"""A program: changes a dataset file in one place after the other, and reports what reading it comes to.

``python damage.py FILE START STEP BITS`` flips BITS bits, one at a time, of every STEP-th byte from START on, and cuts
the file short at as many lengths. It prints, as JSON, how often that was refused, and how often it changed nothing;
anything else that happens ends it with an error, and so does a reading that takes ten seconds.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.boxes import Box


def content(path: Path) -> list[Any]:
    """All that a training takes from a file."""
    info, reader = inspect(path), BoxReader(path)
    image = Box((0,) * len(info.image_shape[1:]), info.image_shape[1:])
    contents: list[Any] = [dataclasses.replace(info, labels={})]
    for split, labels in info.labels.items():
        contents += [split, labels.tobytes(), reader.read(split, image).tobytes()]
        if info.coarse is not None:
            contents.append(reader.read(split, image, info.coarse).tobytes())
    return contents


def damaged(good: bytes, start: int, step: int, bits: int) -> Iterator[tuple[str, bytes]]:
    """What was done, and what the file then holds."""
    for offset in range(start, len(good), step):
        for bit in range(bits):
            changed = bytearray(good)
            changed[offset] ^= 1 << (offset // step + bit) % 8
            yield f"bit {(offset // step + bit) % 8} of byte {offset}", bytes(changed)
    for length in range(start, len(good), step * 16 // bits):
        yield f"cut to {length} bytes", good[:length]


def main(path: Path, start: int, step: int, bits: int) -> None:
    good, known, counts = path.read_bytes(), content(path), Counter[str]()
    for what, changed in damaged(good, start, step, bits):
        path.write_bytes(changed)
        faulthandler.dump_traceback_later(10, exit=True)
        try:
            contents = content(path)
        except UserError as error:
            counts["refused" if str(path) in str(error) else f"refused without the file's name: {error}"] += 1
        except BaseException:
            print(what, file=sys.stderr)
            raise
        else:
            assert contents == known, what
            assert "cut" not in what, what
            counts["unchanged"] += 1
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

"""IDX files, built byte by byte."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import idx

from .sources import pixels_of, read


def idx_bytes(shape: tuple[int, ...], body: bytes, *, kind: int = 0x08, magic: bytes = b"\0\0") -> bytes:
    return magic + bytes([kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


def write_folder(
    folder: Path, *, train: int = 12, test: int = 6, classes: int = 3, dot: str = "-", gz: bool = False
) -> dict[str, np.ndarray]:
    """The four files; returns the images by split. Row i has the label (i // 2) % classes."""
    folder.mkdir(exist_ok=True)
    images = {}
    for seed, (split, prefix, n) in enumerate((("train", "train", train), ("test", "t10k", test))):
        images[split] = np.random.default_rng(seed).integers(0, 256, (n, 5, 4)).astype(np.uint8)
        labels = bytes(i // 2 % classes for i in range(n))
        for kind, content in (
            (f"images{dot}idx3", idx_bytes((n, 5, 4), images[split].tobytes())),
            (f"labels{dot}idx1", idx_bytes((n,), labels)),
        ):
            path = folder / f"{prefix}-{kind}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(content) if gz else content)
    return images


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gzip"])
def test_both_naming_styles_gzip_or_not(tmp_path: Path, dot: str, gz: bool) -> None:
    images = write_folder(tmp_path, dot=dot, gz=gz)
    imported = read(idx, tmp_path)
    splits = imported.splits
    assert imported.class_names == ()
    assert set(splits) == {"train", "test"}
    for split, n in (("train", 12), ("test", 6)):
        assert splits[split].image_shape == (1, 5, 4)
        assert splits[split].dtype == "uint8"
        assert splits[split].labels.tolist() == [i // 2 % 3 for i in range(n)]
        assert np.array_equal(pixels_of(splits[split]), images[split][:, None])


BODY = bytes(range(60))
BAD = {
    "empty file": (b"", "starts with nothing"),
    "magic": (idx_bytes((3, 5, 4), BODY, magic=b"\0\1"), "is not an IDX file: it starts with 00 01 08 03"),
    "text": (b"P5 4 5 255 ...", "is not an IDX file"),
    "two axes": (idx_bytes((12, 5), BODY), "type 0x08 with 2 axes"),
    "four axes": (idx_bytes((3, 5, 2, 2), BODY), "type 0x08 with 4 axes"),
    "signed bytes": (idx_bytes((3, 5, 4), BODY, kind=0x09), "type 0x09 with 3 axes"),
    "floats": (idx_bytes((3, 5, 4), 4 * BODY, kind=0x0D), "type 0x0d"),
    "header cut at once": (b"\0\0\x08", "is not an IDX file"),
    "header cut": (idx_bytes((3, 5, 4), b"")[:13], "is damaged"),
    "header only": (idx_bytes((3, 5, 4), b""), "is damaged: its header claims 3 x 5 x 4 bytes, but 0 follow"),
    "body cut": (idx_bytes((3, 5, 4), BODY[:-1]), "is damaged: its header claims 3 x 5 x 4 bytes, but 59 follow"),
    "body too long": (idx_bytes((3, 5, 4), BODY + b"\0"), "but 61 follow"),
    "huge": (idx_bytes((2**32 - 1, 2**32 - 1, 2**32 - 1), BODY), "is damaged"),
    "little-endian": (b"\0\0\x08\x03" + struct.pack("<3I", 3, 5, 4) + BODY, "is damaged"),
    "gzip cut": (gzip.compress(idx_bytes((3, 5, 4), BODY))[:-12], "is damaged"),
    "gzip header only": (gzip.compress(b"")[:5], "can't be read"),
    "gzip of garbage": (b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\xff" * 50, "can't be read"),
    "gzip wrong sum": (gzip.compress(idx_bytes((3, 5, 4), BODY))[:-8] + bytes(8), "is damaged"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_folder(tmp_path, test=3)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        pixels_of(read(idx, tmp_path).splits["test"])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    (tmp_path / f"{name}-ubyte").unlink()
    with pytest.raises(UserError, match=rf"holds neither {name}-ubyte nor {name}-ubyte\.gz nor"):
        read(idx, tmp_path)


def test_images_and_labels_of_different_number(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes((11,), bytes(11)))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte holds 12 images, but .*train-labels.* 11 labels"):
        read(idx, tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read(idx, tmp_path / "none")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx") / "fuzzed"


def check(path: Path, content: bytes) -> None:
    """Either a user error, or an array of exactly the bytes after the header."""
    path.write_bytes(content)
    try:
        array = idx.open_array(path, 3).read_all()
    except UserError:
        return
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert array.shape == struct.unpack(">3I", plain[4:16])
    assert array.tobytes() == plain[16:]


dimensions = st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=100)
@given(
    prefix=st.one_of(st.just(b"\0\0\x08\x03"), st.binary(max_size=4)),
    shape=st.tuples(dimensions, dimensions, dimensions),
    extra=st.one_of(st.just(0), st.integers(-70, 5)),
    cut=st.one_of(st.none(), st.integers(0, 20)),
    gz=st.booleans(),
)
def test_fuzzed_headers(
    fuzzed: Path, prefix: bytes, shape: tuple[int, int, int], extra: int, cut: int | None, gz: bool
) -> None:
    body = bytes(max(0, min(64, math.prod(shape)) + extra))
    content = (prefix + struct.pack(">3I", *shape) + body)[:cut]
    check(fuzzed, gzip.compress(content) if gz else content)


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, 200), bit=st.integers(0, 7), kept=st.one_of(st.none(), st.integers(0, 90)))
def test_fuzzed_gzip(fuzzed: Path, at: int, bit: int, kept: int | None) -> None:
    content = bytearray(gzip.compress(idx_bytes((3, 5, 4), BODY), mtime=0))
    content[at % len(content)] ^= 1 << bit
    check(fuzzed, bytes(content[:kept]))


def test_a_header_that_announces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 0, 2**32 - 1, 2**32 - 1))
    with pytest.raises(UserError, match="is empty"):
        idx.open_array(path, 3)

"""NIfTI volumes, built byte by byte."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core import environment
from hpcdd.core.environment import resident_memory
from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import nifti
from hpcdd.data.prepare.importers.decode_pool import DecodePool
from hpcdd.data.prepare.importers.resample import resample

from .sources import pixels_of, read, tar_bytes, write_files

INT16, FLOAT32, RGB = 4, 16, 128
CODES = {"int16": INT16, "float32": FLOAT32}


def header(
    shape: tuple[int, ...],
    *,
    code: int = INT16,
    bits: int = 16,
    scale: tuple[float, float] = (1.0, 0.0),
    rows: tuple[tuple[float, ...], ...] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)),
    order: str = "<",
    magic: bytes = b"n+1\0",
    offset: float = 352.0,
) -> bytes:
    """The 348 bytes of a NIfTI-1 header, and four that say that no extension follows."""
    made = bytearray(352)
    struct.pack_into(f"{order}i", made, 0, 348)
    struct.pack_into(f"{order}8h", made, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into(f"{order}2h", made, 70, code, bits)
    struct.pack_into(f"{order}8f", made, 76, *[1.0] * 8)
    struct.pack_into(f"{order}3f", made, 108, offset, *scale)
    struct.pack_into(f"{order}2h", made, 252, 0, 1)  # the affine of the scanner
    for at, row in zip((280, 296, 312), rows, strict=True):
        struct.pack_into(f"{order}4f", made, at, *row)
    made[344:348] = magic
    return bytes(made)


def nii(voxels: np.ndarray[Any, Any], **options: Any) -> bytes:
    """A file of voxels (X, Y, Z), to the patient's right, front and head with the default affine."""
    order = options.get("order", "<")
    code, bits = CODES[voxels.dtype.name], 8 * voxels.dtype.itemsize
    stored = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    return header(voxels.shape, code=code, bits=bits, **options) + stored


def scan(low: float, high: float, seed: int = 0, dtype: str = "int16") -> np.ndarray[Any, Any]:
    """Numbers of equal density between two."""
    return np.random.default_rng(seed).uniform(low, high, (12, 10, 8)).astype(dtype)


def ramp(shape: tuple[int, int, int] = (4, 3, 2)) -> np.ndarray[Any, Any]:
    """Different whole numbers from -1000 up."""
    return (np.arange(np.prod(shape)) * 50 - 1000).reshape(shape).astype(np.int16)


def expected(voxels: np.ndarray[Any, Any], low: float = -1000, high: float = 400) -> np.ndarray[Any, Any]:
    """As radiologists look at it: (D, H, W) from feet to head, front to back, right to left."""
    scaled = np.rint((np.clip(voxels.astype(np.float64), low, high) - low) * 255 / (high - low))
    return scaled.astype(np.uint8).transpose(2, 1, 0)[:, ::-1, ::-1]


WHOLE = {"window": (-1000.0, 400.0), "size": None}


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("packed", [False, True], ids=["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_volume(order: str, packed: bool, dtype: str) -> None:
    voxels = ramp().astype(dtype)
    content = nii(voxels, order=order)
    volume = nifti.decode(gzip.compress(content) if packed else content, "x", **WHOLE)
    assert (volume.shape, volume.dtype) == ((1, 2, 3, 4), np.uint8)
    assert np.array_equal(volume[0], expected(voxels))


def test_slope_and_intercept() -> None:
    stored = (ramp() + 1024) * 2
    assert np.array_equal(nifti.decode(nii(stored, scale=(0.5, -1024.0)), "x", **WHOLE)[0], expected(ramp()))
    unscaled = nifti.decode(nii(ramp(), scale=(0.0, 7.0)), "x", **WHOLE)[0]  # a slope of 0 means: none
    assert np.array_equal(unscaled, expected(ramp()))


def test_volumes_are_turned_identically_whatever_their_axes_are() -> None:
    voxels = ramp()
    turned = voxels[::-1].transpose(2, 0, 1)  # stored axes: head, left, front
    rows = ((0, -1, 0, 3), (0, 0, 1, 0), (1, 0, 0, 0))
    assert np.array_equal(nifti.decode(nii(turned, rows=rows), "x", **WHOLE)[0], expected(voxels))


def test_window_and_size() -> None:
    voxels = np.zeros((8, 8, 6), np.int16)
    voxels[:4] = 100  # the left half
    volume = nifti.decode(nii(voxels), "x", window=(0.0, 200.0), size=[3, 4, 2])[0]
    assert volume.shape == (3, 4, 2)
    assert volume[0, 0].tolist() == [0, 128]


def test_resampling_keeps_means_and_lines() -> None:
    generator = np.random.default_rng(0)
    volume = generator.normal(size=(12, 9, 10)).astype(np.float32)
    small = resample(volume, (4, 3, 5))
    blocks = volume.reshape(4, 3, 3, 3, 5, 2).mean((1, 3, 5))
    np.testing.assert_allclose(small, blocks, atol=1e-6)
    np.testing.assert_allclose(resample(volume, (5, 7, 3)).mean(), volume.mean(), atol=1e-6)
    line = np.arange(6, dtype=np.float32)
    np.testing.assert_allclose(resample(line, (11,))[2:-2], ((np.arange(11) + 0.5) * 6 / 11 - 0.5)[2:-2], atol=1e-6)
    assert resample(volume, volume.shape) is volume


def test_a_folder_of_classes(tmp_path: Path) -> None:
    """As MosMedData is shipped: studies/CT-0/study_0001.nii.gz, numbers of slices that differ."""
    files, volumes = {"studies/dataset_registry.xlsx": b"x"}, []
    for grade in range(2):
        for i in range(3):
            voxels = ramp((4, 4, 3 + i))
            files[f"studies/CT-{grade}/study_{i:04}.nii.gz"] = gzip.compress(nii(voxels + 50 * grade))
            volumes.append(voxels)
    for source in (write_files(tmp_path / "MosMedData", files), tmp_path / "mosmed.tar"):
        if source.suffix:
            source.write_bytes(tar_bytes(files, ""))
        imported = read(nifti, source, size=[3, 4, 4], window=[-1000, 400])
        assert imported.class_names == ("CT-0", "CT-1")
        assert imported.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
        images = pixels_of(imported.splits["train"])
        assert images.shape == (6, 1, 3, 4, 4)
        assert np.array_equal(images[0, 0], expected(volumes[0]))
        with pytest.raises(UserError, match=r"study_0001\.nii\.gz has the shape \(1, 4, 4, 4\), but the first one"):
            pixels_of(read(nifti, source).splits["train"])


GOOD = nii(ramp())
BAD = {
    "empty": (b"", "can't be read as a NIfTI volume"),
    "text": (b"hello " * 100, "can't be read as a NIfTI volume"),
    "header cut": (GOOD[:200], "can't be read as a NIfTI volume"),
    "magic": (nii(ramp(), magic=b"nope"), "can't be read as a NIfTI volume"),
    "voxels cut": (GOOD[:-1], "is truncated: its header claims 4 x 3 x 2 voxels of 2 bytes from byte 352"),
    "claims too much": (header((30_000, 30_000, 30_000)) + bytes(99), "is truncated"),
    "gzip cut": (gzip.compress(GOOD)[:-12], "is damaged"),
    "gzip of nothing": (gzip.compress(b""), "can't be read as a NIfTI volume"),
    "four axes": (header((4, 3, 2, 5)) + bytes(240), r"has the shape \(4, 3, 2, 5\); a volume has three axes"),
    "no axes": (header((0, 3, 2)) + bytes(240), "can't be read as a NIfTI volume|has the shape"),
    "colours": (header((4, 3, 2), code=RGB, bits=24) + bytes(72), "holds voxels of type"),
    "unknown type": (header((4, 3, 2), code=77) + bytes(72), "can't be read as a NIfTI volume"),
    "offset": (nii(ramp(), offset=float("inf")), "can't be read as a NIfTI volume"),
    "NaN": (nii(np.full((4, 3, 2), np.nan, np.float32)), "NaN or infinite"),
    "overflow": (nii(np.full((4, 3, 2), 3e38, np.float32), scale=(10.0, 0.0)), "NaN or infinite"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_volume_is_named(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        nifti.decode(content, "CT-1/study.nii", **WHOLE)
    assert str(caught.value).startswith("CT-1/study.nii ")


@pytest.mark.parametrize("claimed", [1 << 11, (1 << 15) - 1])
def test_a_small_file_does_not_ask_for_huge_memory(claimed: int) -> None:
    """Two MB that gzip unfolds to two GB, and a header that announces more than memory holds."""
    content = gzip.compress(header((claimed, claimed, claimed)) + bytes(1 << 20))
    before = resident_memory()[1]
    with pytest.raises(UserError, match=r"^a/b claims a size of [\d,]+ bytes; the limit is 2,147,483,648"):
        nifti.decode(content, "a/b", **WHOLE)
    assert resident_memory()[1] - before < 1 << 26


@pytest.mark.parametrize("packed", [False, True])
def test_a_volume_that_memory_has_no_room_for(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: 0)
    monkeypatch.setattr(environment, "_ALWAYS_THERE", 0)
    with pytest.raises(UserError, match=r"^a/b (announces|claims) .*: .* GiB of memory are needed, but 0\.0 GiB"):
        nifti.decode(gzip.compress(GOOD) if packed else GOOD, "a/b", **WHOLE)


def test_bad_volumes_are_skipped_if_wanted(tmp_path: Path) -> None:
    files = {f"{name}/{i}.nii": nii(ramp()) for name in ("a", "b") for i in range(3)} | {"a/1.nii": GOOD[:-1]}
    pool = DecodePool(skip_bad=True, threads=2)
    train = read(nifti, write_files(tmp_path, files), pool).splits["train"]
    assert len(pixels_of(train)) == 5
    assert "skipped 1 bad files" in pool.report()


@settings(max_examples=100)
@given(at=st.integers(0, 351), change=st.binary(min_size=1, max_size=8), kept=st.one_of(st.none(), st.integers(0, 400)))
def test_fuzzed_headers(at: int, change: bytes, kept: int | None) -> None:
    content = bytearray(GOOD)
    content[at : at + len(change)] = change
    try:
        volume = nifti.decode(bytes(content[:kept]), "x", window=(-1000.0, 400.0), size=[2, 3, 4])
    except UserError:
        return
    assert volume.shape == (1, 2, 3, 4)


def write_scans(folder: Path, *scans: np.ndarray[Any, Any]) -> Path:
    """Three volumes of each of two classes, in the order given."""
    files = {f"{name}/{i}.nii": nii(scans[(3 * k + i) % len(scans)]) for k, name in enumerate("ab") for i in range(3)}
    return write_files(folder / "scans", files)


UNSUITED = {
    "MRI": (scan(0, 3000), "88% of the voxels become 255", "from 0 to 299"),
    "8 bits": (scan(0, 256), "98% of the voxels lie in 47 of 256 grey levels", "from 0 to 255"),
    "unit range": (scan(0, 1, dtype="float32"), "98% of the voxels lie in 1 of 256 grey levels", "from 0.00"),
    "other units": (scan(-1.0, 0.4, dtype="float32"), "98% of the voxels lie in 1 of 256 grey levels", "from -0.999"),
}


@pytest.mark.parametrize(("volume", "fault", "intensities"), UNSUITED.values(), ids=UNSUITED.keys())
def test_volumes_that_the_default_window_does_not_suit(
    tmp_path: Path, volume: np.ndarray[Any, Any], fault: str, intensities: str
) -> None:
    source = write_scans(tmp_path, volume)
    with pytest.raises(UserError, match=f"scans: {fault} with the default window.*intensities {intensities}") as caught:
        read(nifti, source)
    proposal = re.search(r"such as --window (\S+) (\S+), or --window -1000 400 if", str(caught.value))
    assert proposal is not None
    images = pixels_of(read(nifti, source, window=[float(number) for number in proposal.groups()]).splits["train"])
    assert 0.005 < (images == 255).mean() < 0.02
    assert len(np.unique(images)) > 200
    assert len(pixels_of(read(nifti, source, window=[-1000.0, 400.0]).splits["train"])) == 6  # as the user wishes


def test_volumes_of_which_the_first_alone_suits_the_default_window(tmp_path: Path) -> None:
    train = read(nifti, write_scans(tmp_path, scan(-1000, 400), *[scan(0, 3000)] * 5)).splits["train"]
    with pytest.raises(UserError, match="74% of the voxels become 255"):
        pixels_of(train)


def test_air_is_no_reason_to_refuse_the_default_window(tmp_path: Path) -> None:
    """Around a body there is air, a little below -1000, and what scanners pad with."""
    volume = scan(-1000, 1000)
    volume.reshape(-1)[: int(0.7 * volume.size)] = -3024
    pool = DecodePool(threads=2)
    pixels_of(read(nifti, write_scans(tmp_path, volume), pool).splits["train"])
    (note,) = pool.notes()
    assert note.startswith("intensities from -3024 to 99")
    assert re.search(r"70\.0% below and 9\.\d% above the window -1000 to 400$", note)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (400.0, -1000.0)}, "--window is 400 -1000; use two numbers, the lower one first"),
        ({"window": (float("nan"), 0.0)}, "--window is nan 0"),
        ({"size": [0, 1, 1]}, "--size is 0 1 1; use three positive numbers"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(nifti, tmp_path, **options)

"""Single images: one size, grey or RGB; images that lie or are damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import folder, image_files
from hpcdd.data.prepare.importers.image_files import ImageTransform

from .sources import pixels_of, read, tar_bytes, write_files, zip_bytes


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, value: int = 7, *, claimed: tuple[int, int] | None = None) -> bytes:
    """A grey PNG of one value, byte by byte; its header may claim another size."""
    header = struct.pack(">2I5B", *(claimed or (width, height)), 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([value]) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bars(width: int, height: int) -> bytes:
    """Left half black, right half white."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


def test_fits() -> None:
    wide = bars(8, 4)
    resized, cropped, padded = (ImageTransform((4, 4), fit).decode(wide, "x")[0] for fit in image_files.FITS)
    for image in (resized, cropped, padded):
        assert image.shape == (4, 4)
    assert resized[0, 0] == cropped[0, 0] == 0
    assert resized[0, 3] == cropped[0, 3] == 255
    assert padded[:, 3].tolist() == [0, 255, 255, 0]  # black above and below
    assert ImageTransform((4, 8), "resize").decode(wide, "x").tobytes() == ImageTransform().decode(wide, "x").tobytes()


def test_grey_and_rgb() -> None:
    assert ImageTransform(mode="RGB").decode(png(3, 2), "x").tolist() == [[[7] * 3] * 2] * 3
    assert ImageTransform(mode="L").decode(png(3, 2), "x").shape == (1, 2, 3)


def test_formats_are_known_to_pillow_with_all_their_suffixes() -> None:
    known = Image.registered_extensions()
    assert set(image_files.FORMATS) <= set(Image.OPEN)
    for kind, suffixes in image_files.FORMATS.items():
        assert set(suffixes) == {suffix for suffix, of in known.items() if of == kind}


@pytest.mark.parametrize("kind", image_files.FORMATS)
def test_every_format_is_read(kind: str) -> None:
    made = io.BytesIO()
    Image.new("RGB", (6, 4), "white").save(made, kind)
    assert ImageTransform(mode="L").decode(made.getvalue(), "x").min() > 250


@pytest.mark.parametrize("kind", ["EPS", "TGA", "ICO", "PCX", "DIB", "PDF"])
def test_no_other_format_is_decoded_whatever_its_suffix(kind: str) -> None:
    """EPS content in x.png would run Ghostscript."""
    made = io.BytesIO()
    Image.new("RGB", (6, 4)).save(made, kind)
    with pytest.raises(UserError, match=r"x\.png can't be read as an image: .* none of the formats AVIF, BMP"):
        ImageTransform().decode(made.getvalue(), "x.png")


def test_cameras_that_were_turned() -> None:
    made = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is up
    Image.new("L", (6, 4)).save(made, "JPEG", exif=exif)
    assert ImageTransform().decode(made.getvalue(), "x").shape == (1, 6, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(2, 2, claimed=(60_000, 60_000)), "Image size .3600000000 pixels. exceeds limit"),
        (png(2, 2, claimed=(9_000, 9_000)), "claims to have 9000 x 9000 pixels"),
        (png(2, 2, claimed=(40, 40)), "can't be read as an image"),
        (png(2, 2)[:40], "can't be read as an image"),
        (png(4, 4).replace(b"IDAT", b"IDAX"), "can't be read as an image"),
        (b"P5\n4 4\n65535\n" + bytes(32), "has 16 bits per channel"),
        (b"P5\n4 x\n255\n", "can't be read as an image"),
        (b"BM" + bytes(60), "can't be read as an image"),
        (b"", "can't be read as an image"),
    ],
)
def test_bad_images_are_named(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ImageTransform((2, 2)).decode(content, "some/file.png")
    assert "some/file.png" in str(caught.value)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def deep_png(colours: int, channels: int) -> bytes:
    """16 bits per channel, all 0."""
    header = struct.pack(">2I5B", 2, 2, 16, colours, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * channels)) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """16 bits per channel in RGB, all 0, as Pillow can't write it."""
    made = bytearray(stored(Image.new("RGB", (2, 4)), "TIFF"))
    at = made.index(struct.pack("<HHI", 258, 3, 3)) + 8
    (bits,) = struct.unpack_from("<I", made, at)
    struct.pack_into("<3H", made, bits, 16, 16, 16)
    return bytes(made) + bytes(48)


DEEP = {
    "PNG, grey": (deep_png(0, 1), 16),
    "PNG, RGB": (deep_png(2, 3), 16),
    "PNG, grey with opacity": (deep_png(4, 2), 16),
    "PNG, RGBA": (deep_png(6, 4), 16),
    "PPM": (b"P6 2 2 65535 " + bytes(24), 16),
    "PPM of 10 bits": (b"P6 2 2 1023 " + bytes(24), 10),
    "PPM in words": (b"P3 1 1 1023 1 2 3 ", 10),
    "PGM": (b"P5 2 2 65535 " + bytes(8), 16),
    "TIFF": (deep_tiff(), 16),
    "TIFF of floats": (stored(Image.new("F", (2, 2)), "TIFF"), 32),
    "JPEG 2000": (stored(Image.new("I;16", (32, 32)), "JPEG2000"), 16),
}


@pytest.mark.parametrize(("content", "bits"), DEEP.values(), ids=DEEP.keys())
@pytest.mark.parametrize("mode", [None, "L", "RGB"])
def test_more_than_8_bits_are_never_cut_off(content: bytes, bits: int, mode: str | None) -> None:
    with pytest.raises(UserError, match=rf"a/b has {bits} bits per channel .*; convert it to 8 bits .* prepare npz"):
        ImageTransform(mode=mode).decode(content, "a/b")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "BMP", "GIF", "JPEG2000", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_8_bits_are_read_in_every_format(kind: str, mode: str) -> None:
    assert ImageTransform(mode="L").decode(stored(Image.new(mode, (32, 16)), kind), "x").shape == (1, 16, 32)


def test_large_jpeg_files_are_decoded_at_a_part_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.zeros((640, 800), np.uint8)
    half[:, 400:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is up
    content = stored(Image.fromarray(half), "JPEG", exif=exif, quality=95)
    expected = ImageTransform((8, 4)).decode(content, "x")
    monkeypatch.setattr(image_files, "MOST_PIXELS", 200 * 160)
    assert (expected[0, :, 0] > 128).tolist() == [False] * 4 + [True] * 4
    np.testing.assert_allclose(ImageTransform((8, 4)).decode(content, "x").astype(int), expected, atol=8)
    with pytest.raises(UserError, match=r"x claims to have 800 x 640 pixels, .* at most 32,000 .* use --size H W"):
        ImageTransform().decode(content, "x")
    with pytest.raises(UserError, match=r"claims to have 800 x 640 pixels.*smaller --size"):
        ImageTransform((500, 500)).decode(content, "x")
    for other in (stored(Image.fromarray(half), "PNG"), stored(Image.fromarray(half), "JPEG", progressive=True)):
        with pytest.raises(UserError, match="claims to have 800 x 640 pixels"):
            ImageTransform((8, 4)).decode(other, "x")


@pytest.mark.parametrize("edge", [17_000, 60_000])
def test_no_jpeg_file_asks_for_more_than_the_bound(edge: int) -> None:
    content = bytearray(stored(Image.new("L", (8, 8)), "JPEG"))
    at = content.index(b"\xff\xc0") + 5  # a few hundred bytes that claim a large picture
    struct.pack_into(">2H", content, at, edge, edge)
    with pytest.raises(UserError, match=f"claims to have {edge} x {edge} pixels"):
        ImageTransform((8, 8)).decode(bytes(content), "x")


def jpeg() -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(made, "JPEG")
    return made.getvalue()


@settings(max_examples=100)
@given(
    original=st.sampled_from([png(4, 4), jpeg(), b"P5\n4 4\n255\n" + bytes(16), bars(4, 4)]),
    at=st.integers(0, 400),
    change=st.binary(min_size=1, max_size=6),
    kept=st.one_of(st.none(), st.integers(0, 400)),
)
def test_fuzzed_images(original: bytes, at: int, change: bytes, kept: int | None) -> None:
    content = bytearray(original)
    at %= len(content)
    content[at : at + len(change)] = change
    try:
        image = ImageTransform((5, 6), "crop").decode(bytes(content[:kept]), "x")
    except UserError:
        return
    assert image.shape in {(1, 5, 6), (3, 5, 6)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "crop"}, "--fit crop applies to the size of --size; give --size H W as well"),
        ({"size": [0, 4]}, "--size is 0 4; use positive numbers"),
        ({"size": [1 << 20, 1 << 20]}, "use positive numbers, at most"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(folder, tmp_path, **options)


def test_flowers_of_odd_sizes_from_an_archive(tmp_path: Path) -> None:
    """As TF-Flowers is shipped: one folder around the classes, a licence next to them."""
    files = {"flower_photos/LICENSE.txt": b"CC-BY"}
    for number, (name, i) in enumerate((name, i) for name in ("tulips", "daisy") for i in range(4)):
        files[f"flower_photos/{name}/{i}.png"] = png(5 + i, 9 - i, 20 * number)
    for suffix, content in ((".tgz", tar_bytes(files)), (".zip", zip_bytes(files))):
        source = tmp_path / f"flowers{suffix}"
        source.write_bytes(content)
        imported = read(folder, source, size=[6, 6])
        assert imported.class_names == ("daisy", "tulips")
        assert imported.notes == ["not used: 1 .txt in flower_photos (no suffix of images)"]
        train = imported.splits["train"]
        assert train.labels.tolist() == [0] * 4 + [1] * 4
        assert pixels_of(train)[:, 0, 0, 0].tolist() == [80, 100, 120, 140, 0, 20, 40, 60]
        with pytest.raises(UserError, match=r"png has the shape \(1, \d, \d\), but the first one"):
            pixels_of(read(folder, source).splits["train"])


def test_splits_of_other_sizes_are_reported(tmp_path: Path) -> None:
    files = {f"{split}/{name}/0.png": png(n, 4) for split, n in (("train", 4), ("test", 5)) for name in "ab"}
    with pytest.raises(UserError, match="images differ between splits: .* set one with --size"):
        read(folder, write_files(tmp_path, files))

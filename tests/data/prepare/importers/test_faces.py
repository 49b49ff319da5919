"""The extended Yale B database in small: PGM files byte by byte, in the layout of CroppedYale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import faces
from hpcdd.data.prepare.importers.decode_pool import DecodePool

from .sources import pixels_of, read, write_files, zip_bytes


def pgm(value: int, width: int = 4, height: int = 5, *, kept: int | None = None) -> bytes:
    return b"P5\n%d %d\n255\n" % (width, height) + (bytes([value]) * (width * height))[:kept]


def database() -> dict[str, bytes]:
    files = {}
    for number, subject in enumerate(("yaleB01", "yaleB02", "yaleB39")):
        for light, angles in enumerate(("A+000E+00", "A-005E-10", "A+120E+00")):
            files[f"{subject}/{subject}_P00{angles}.pgm"] = pgm(50 * number + light)
        files[f"{subject}/{subject}_P00_Ambient.pgm"] = pgm(255, 9, 9)  # another size, in the original as well
        files[f"{subject}/{subject}_P00.info"] = b"yaleB01_P00A+000E+00.pgm\n"
    files["yaleB02/yaleB02_P00A+050E-40.pgm.bad"] = b"no image"
    return files


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_subjects_from_names(tmp_path: Path, packed: bool) -> None:
    source = tmp_path / "CroppedYale"
    if packed:
        source.write_bytes(zip_bytes({f"CroppedYale/{name}": content for name, content in database().items()}))
    else:
        write_files(source, database())
    imported = read(faces, source)
    assert imported.class_names == ("yaleB01", "yaleB02", "yaleB39")
    assert [(note.split()[2:4], note.rpartition("(")[2]) for note in imported.notes] == [
        (["3", ".info"], "not named as a face)"),
        (["3", ".pgm"], "ambient light)"),
        (["1", ".bad"], "called bad by the publisher)"),
    ]
    train = imported.splits["train"]
    assert list(imported.splits) == ["train"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert train.image_shape == (1, 5, 4)
    assert pixels_of(train)[:, 0, 0, 0].tolist() == [0, 2, 1, 50, 52, 51, 100, 102, 101]  # + before -, by name
    assert read(faces, source, size=[10, 8]).splits["train"].image_shape == (1, 10, 8)


def test_a_damaged_face_stops_or_is_skipped(tmp_path: Path) -> None:
    bad = "yaleB02/yaleB02_P00A+120E+00.pgm"
    write_files(tmp_path, database() | {bad: pgm(0, kept=7)})
    with pytest.raises(
        UserError,
        match=r"can't be read as an image.*; repair or remove it, or .* "
        "--skip-bad",
    ) as caught:
        pixels_of(read(faces, tmp_path).splits["train"])
    assert str(tmp_path / bad) in str(caught.value)
    pool, left_out = DecodePool(skip_bad=True, threads=2), []
    train = read(faces, tmp_path, pool).splits["train"]
    images = np.concatenate(list(train.rows(np.arange(9), left_out.append)))
    assert images[:, 0, 0, 0].tolist() == [0, 2, 1, 50, 51, 100, 102, 101]
    assert left_out == [4]
    assert pool.report().startswith("skipped 1 bad files: ")
    assert bad in pool.report()


def test_no_faces(tmp_path: Path) -> None:
    write_files(tmp_path, {"yaleB01/yaleB01_P00A+000E+00.pgm": pgm(0), "x.pgm": pgm(1)})
    with pytest.raises(UserError, match="holds faces of 1 subjects; it must contain folders yaleB01, yaleB02"):
        read(faces, tmp_path)
    with pytest.raises(UserError, match="none is not there"):
        read(faces, tmp_path / "none")

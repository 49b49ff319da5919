"""Raw pictures and volumes become what `hpcdd prepare` made of those of the data set, by the model file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from hpcdd.cli import main
from hpcdd.config.schema import CoherentSettings, Config, DecompositionSettings, ModelSettings
from hpcdd.data.format import inspect

from ..artifacts.test_model_file import CASES, written


def predicted(*arguments: Path | str) -> list[Any]:
    """Class, probability and votes of each image."""
    out = Path(arguments[0]).parent / "p.json"
    assert main.main(["predict", *map(str, arguments), "--format", "json", "--output", str(out)]) == 0
    rows = json.loads(out.read_text())["predictions"]
    return [(row["truth"], row["class"], pytest.approx(row["probability"], abs=1e-6), row["votes"]) for row in rows]


def pictures(folder: Path) -> None:
    """JPEG files of several sizes and modes."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                path = folder / split / label / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 255, (20 + 3 * i, 30 - i, 3)).astype(np.uint8)
                Image.fromarray(pixels).convert("L" if i == 1 else "RGB").save(path)


def volumes(folder: Path) -> None:
    """NIfTI files of several sizes."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                path = folder / split / label / f"{i}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                voxels = generator.integers(-1200, 600, (9 + i, 8, 7)).astype(np.int16)
                nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.0, 2.0, 1.0])).to_filename(path)


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
def test_a_raw_jpeg_just_works(tmp_path: Path, fit: str) -> None:
    pictures(tmp_path / "source")
    command = ["prepare", "folder", tmp_path / "source", tmp_path / "d.h5", "--size", "12", "12", "--fit", fit, "--rgb"]
    assert main.main(list(map(str, command))) == 0
    written(tmp_path / "model.h5", inspect(tmp_path / "d.h5"), CASES["vgg"])
    (tmp_path / "d.h5").rename(tmp_path / "moved.h5")
    stored = predicted(tmp_path / "model.h5", tmp_path / "moved.h5")
    assert len(stored) == 4
    assert predicted(tmp_path / "model.h5", tmp_path / "source/test") == stored


def test_a_raw_volume_just_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volumes(tmp_path / "source")
    command = [
        "prepare",
        "nifti",
        tmp_path / "source",
        tmp_path / "d.h5",
        "--size",
        "6",
        "8",
        "8",
        "--window",
        "-900",
        "300",
    ]
    assert main.main(list(map(str, command))) == 0
    config = Config(
        model=ModelSettings(name="vgg1"),
        decomposition=DecompositionSettings(grid=(1, 2, 2)),
        coherent=CoherentSettings(starts=()),
    )
    written(tmp_path / "model.h5", inspect(tmp_path / "d.h5"), config)
    stored = predicted(tmp_path / "model.h5", tmp_path / "d.h5")
    assert predicted(tmp_path / "model.h5", tmp_path / "source/test") == stored
    assert "warning" not in "".join(capsys.readouterr())
    other = np.random.default_rng(0).integers(0, 3000, (9, 8, 7)).astype(np.int16)  # of a magnetic resonance scanner
    nibabel.Nifti1Image(other, np.diag([-1.0, 1.0, 2.0, 1.0])).to_filename(tmp_path / "source/test/a/9.nii")
    assert main.main(["predict", str(tmp_path / "model.h5"), str(tmp_path / "source/test"), "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 6
    assert "warning: volumes that the model's window does not suit: " in captured.err
    assert f"{tmp_path}/source/test/a/9.nii: 88% of the voxels become 255, intensities from 8 to 2991" in captured.err


def test_files_without_a_preparation_keep_their_fingerprint() -> None:
    """That of the embedded data set, which was written before there were any, is what stands in the file."""
    assert inspect(Path(main.__file__).parents[1] / "data/embedded/fashion_mnist_12k.h5").preparation is None

"""How folders become classes and splits; what is reported, and what is refused because it would change the data set."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hpcdd.cli.main import main
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.prepare.importers import folder

from .sources import pixels_of, read, tar_bytes, write_files, zip_bytes
from .test_image_files import png


def images(*names: str) -> dict[str, bytes]:
    """Images by name, each of another grey."""
    return {name: png(4, 4, number) for number, name in enumerate(names)}


def labels(root: Path) -> dict[str, list[str]]:
    """The class of each image by split."""
    imported = read(folder, root)
    return {split: [imported.class_names[label] for label in part.labels] for split, part in imported.splits.items()}


def refused(root: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(folder, write_files(root, files))


def test_all_images_below_a_class_belong_to_it(tmp_path: Path) -> None:
    write_files(tmp_path, images("tumor/p1/1.png", "tumor/p2/left/1.png", "healthy/1.png", "healthy/more/1.png"))
    assert labels(tmp_path) == {"train": ["healthy", "healthy", "tumor", "tumor"]}


def test_depth_within_splits(tmp_path: Path) -> None:
    write_files(tmp_path, images("train/a/p/1.png", "train/b/1.png", "test/a/1.png", "test/b/x/y/1.png"))
    assert labels(tmp_path) == {"train": ["a", "b"], "test": ["a", "b"]}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "valid", "test"), ["train", "validation", "test"]),
        (("Training", "Testing"), ["train", "test"]),
        (("TRAIN", "Val"), ["train", "validation"]),
        (("data/train", "data/validation"), ["train", "validation"]),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, ...], splits: list[str]) -> None:
    write_files(tmp_path, images(*(f"{name}/{label}/1.png" for name in names for label in "ab")))
    assert labels(tmp_path) == {split: ["a", "b"] for split in splits}


@pytest.mark.parametrize("names", [("train", "car"), ("valid", "invalid")])
def test_classes_that_are_called_as_splits_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_files(tmp_path, images(*(f"{name}/1.png" for name in names)))
    assert labels(tmp_path) == {"train": sorted(names)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/1.png", "test/1.png"), r"train and test hold images, but no folders of classes \(train/CLASS/FILE\)"),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "test holds images, but no .* or name .*train alone"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "holds both val and valid, which both name the same split"),
        (("cat/1.png", "dog/1.png", "test/1.png"), "holds test next to cat, dog: it could be a split or a class"),
        (
            ("train/a/1.png", "train/b/1.png", "masks/a/1.png"),
            "holds train next to masks: .* a split or a class; rename it",
        ),
        (("a/train/1.png", "a/test/1.png", "b/train/1.png"), "a holds train and test, which are splits inside a class"),
    ],
)
def test_unclear_arrangements_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    refused(tmp_path, images(*names), message)


TWO = images("a/1.png", "b/1.png")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"c/1.heic": b"x", "c/2.heic": b"x"}, "c holds no images that can be read: 2 .heic; convert its files, or"),
        ({"c/1": b"x"}, "c holds no images that can be read: 1 without suffix"),
        ({"c/.hidden": b"x"}, "c holds no images that can be read: it is empty"),
    ],
)
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_class_does_not_vanish(tmp_path: Path, split: str, more: dict[str, bytes], message: str) -> None:
    refused(tmp_path, {split + name: content for name, content in (TWO | more).items()}, message)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_an_empty_folder_is_no_class(tmp_path: Path, kind: str) -> None:
    root = write_files(tmp_path / "source", TWO)
    (root / "c").mkdir()
    source = root
    if kind == "tar":
        source = tmp_path / "t.tar"
        subprocess.run(["tar", "-cf", source, "-C", root, "."], check=True)
    elif kind == "zip":
        source = tmp_path / "z.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in root.rglob("*"):
                archive.write(path, path.relative_to(root))
    with pytest.raises(UserError, match="c holds no images that can be read: it is empty"):
        read(folder, source)


def test_a_link_to_nowhere_is_no_class(tmp_path: Path) -> None:
    write_files(tmp_path, TWO)
    (tmp_path / "c").symlink_to("/nowhere")
    with pytest.raises(UserError, match="c holds no images that can be read: .*leads nowhere"):
        read(folder, tmp_path)


def test_a_split_does_not_vanish(tmp_path: Path) -> None:
    refused(
        tmp_path, images("train/a/1.png", "train/b/1.png") | {"val/a/1.heic": b"x"}, "val holds no images .* 1 .heic"
    )


def test_a_class_beside_the_folder_of_the_others_does_not_vanish(tmp_path: Path) -> None:
    """Patients of the one class that is left are no classes."""
    files = images("tumor/p1/1.png", "tumor/p2/1.png") | {"healthy/1.heic": b"x"}
    refused(tmp_path, files, "healthy holds no images that can be read: 1 .heic")


def test_documents_are_no_class_and_are_reported(tmp_path: Path) -> None:
    files = TWO | {"annotations/1.xml": b"", "annotations/2.xml": b"", "README.md": b"", "0.png": png(4, 4)}
    imported = read(folder, write_files(tmp_path, files))
    assert imported.class_names == ("a", "b")
    assert imported.notes == [
        "not used: 2 .xml in annotations (no suffix of images)",
        "not used: 1 .md in the top folder (no suffix of images)",
        "not used: 1 .png in the top folder (in no folder of a class)",
    ]


def test_some_unreadable_files_of_a_class_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{label}/{i}.png" for label in "ab" for i in range(4)]
    write_files(tmp_path / "source", images(*names) | {"a/9.heic": b"x", "@eaDir/a.png": b"x"})
    assert main(["prepare", "folder", str(tmp_path / "source"), str(tmp_path / "d.h5")]) == 0
    printed = capsys.readouterr().out
    assert "  not used: 1 .heic in a (no suffix of images)\n" in printed
    assert "  not used: 1 files in @eaDir (made by a file server or system)\n" in printed


def test_the_sheet_of_an_earlier_run_is_no_sample(tmp_path: Path) -> None:
    """Neither where it lies in a class nor in a folder of its own."""
    write_files(tmp_path, images(*(f"{label}/{i}.png" for label in "ab" for i in range(4))))
    before = None
    for out in ("a/d.h5", "made/d.h5", "again/d.h5"):
        assert main(["prepare", "folder", str(tmp_path), str(tmp_path / out)]) == 0
        info = inspect(tmp_path / out)
        assert before in (None, (info.class_names, info.samples))
        before = info.class_names, info.samples
    assert before == (("a", "b"), {"train": 6, "test": 2})


def test_a_folder_and_its_archives_are_the_same_data_set(tmp_path: Path) -> None:
    names = [f"data/{label}/{i}.png" for label in ("b", "a", "a-b") for i in (10, 2, 1)]
    files = images(*names)
    sources = [write_files(tmp_path / "source", files), tmp_path / "t.tgz", tmp_path / "t.tar", tmp_path / "z.zip"]
    for source, content in zip(sources[1:], (tar_bytes(files), tar_bytes(files, ""), zip_bytes(files)), strict=True):
        source.write_bytes(content)
    imported = [read(folder, source) for source in sources]
    for other in imported[1:]:
        assert other.class_names == imported[0].class_names == ("a", "a-b", "b")
        assert np.array_equal(other.splits["train"].labels, imported[0].splits["train"].labels)
        assert np.array_equal(pixels_of(other.splits["train"]), pixels_of(imported[0].splits["train"]))


def test_names_in_latin_1_all_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = bytes(tmp_path) + b"/s\xe9rie"
    for label in (b"chat", b"\xe9t\xe9"):
        for i in range(4):
            path = Path((root + b"/" + label + b"/%d.png" % i).decode(errors="surrogateescape"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(4, 4, i))
    source = root.decode(errors="surrogateescape")
    assert main(["prepare", "folder", source, f"{source}.h5"]) == 0
    info = inspect(Path(f"{source}.h5"))
    assert (info.class_names, info.name, info.source) == (("chat", "été"), "série", str(tmp_path / "série"))
    assert re.search(r"train: 6 samples \(chat 3, été 3\)", capsys.readouterr().out)

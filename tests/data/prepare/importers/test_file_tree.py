"""Folders and archives as one tree of files; archives that lie."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers.archives import open_tree
from hpcdd.data.prepare.importers.file_tree import MOST_BYTES, stem

from .sources import tar_bytes, write_files, zip_bytes

FILES = {"b/2": b"two", "b/1": b"one" * 700, "a/.hidden": b"x", "__MACOSX/b/1": b"x", "a/3": b""}
SHOWN = {"a/3", "b/1", "b/2"}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "", "zip", "folder"])
def test_the_same_files_from_everything(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    if kind == "folder":
        write_files(source, FILES)
    else:
        source.write_bytes(zip_bytes(FILES) if kind == "zip" else tar_bytes(FILES, kind))
    tree = open_tree(source)
    assert set(tree.files) == SHOWN
    for name in (*tree.files, *reversed(tree.files)):
        assert tree.read(name) == FILES[name]


def test_folders_are_sorted_part_by_part(tmp_path: Path) -> None:
    write_files(tmp_path, {"b/1": b"", "a/2": b"", "a/10": b"", "a.b/1": b""})
    assert open_tree(tmp_path).files == ("a/10", "a/2", "a.b/1", "b/1")


def test_a_link_to_a_folder_around_it_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/1": b""})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(UserError, match="a/up is a link to a folder that contains it; remove the link"):
        open_tree(tmp_path)


def test_links_of_a_folder_may_lead_anywhere_else(tmp_path: Path) -> None:
    write_files(tmp_path / "store", {"x/1": b"one", "2": b"two"})
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "a").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "chosen" / "b").symlink_to("../store/2")
    tree = open_tree(tmp_path / "chosen")
    assert [tree.read(name) for name in tree.files] == [b"one", b"two"]
    assert tree.files == ("a/1", "b")


def test_what_can_not_be_read_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "lost.png").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    tree = open_tree(tmp_path)
    assert tree.files == ("lost.png", "pipe.png")
    with pytest.raises(UserError, match=r"lost\.png is a broken link"):
        tree.read("lost.png")
    with pytest.raises(UserError, match=r"pipe\.png is neither a file nor a folder"):
        tree.read("pipe.png")


def test_a_folder_that_can_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a/1": b"", "lost+found/1": b""})
    listed = os.scandir

    def scandir(path: str) -> object:
        if path.endswith(("/a", "lost+found")):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="/a can't be read: Permission denied"):
        open_tree(tmp_path)
    (tmp_path / "a" / "1").unlink()
    (tmp_path / "a").rmdir()
    assert open_tree(tmp_path).files == ()


def test_litter_is_left_out_and_counted(tmp_path: Path) -> None:
    litter = ("@eaDir/1.png", "#recycle/a/1.png", "lost+found/1", "__MACOSX/1.png", ".thumbnails/1.png", "a/.1.png")
    write_files(tmp_path, dict.fromkeys(litter, b"") | {"a/1.png": b"", "d.h5": b"", "d.png": b"", "e.png": b""})
    tree = open_tree(tmp_path)
    assert tree.files == ("a/1.png", "d.h5", "e.png")
    assert tree.folders == ("a",)
    assert sorted(tree.unused.lines()) == [
        "not used: 1 .png in a (hidden)",
        "not used: 1 .png in the top folder (contact sheet of a dataset file)",
        "not used: 1 files in .thumbnails (hidden)",
        "not used: 4 files in #recycle, @eaDir, __MACOSX and 1 more folders (made by a file server or system)",
    ]


def test_names_that_are_not_utf_8_are_taken_as_latin_1(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "source") + b"/\xe9t\xe9")).mkdir()
    Path(os.fsdecode(bytes(tmp_path / "source") + b"/\xe9t\xe9/1")).write_bytes(b"content")
    tree = open_tree(tmp_path / "source")
    assert tree.files == ("\xe9t\xe9/1",)
    assert tree.read("\xe9t\xe9/1") == b"content"
    write_files(tmp_path / "source", {"\xe9t\xe9/1": b"the same name in UTF-8"})
    with pytest.raises(UserError, match="\xe9t\xe9/1 is the name of two files"):
        open_tree(tmp_path / "source")


def test_what_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is not there"):
        open_tree(tmp_path / "none")
    write_files(tmp_path, {"text": b"some text", "empty": b""})
    for name in ("text", "empty"):
        with pytest.raises(UserError, match=f"{name} is neither a folder nor a tar or zip archive"):
            open_tree(tmp_path / name)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    source = tmp_path / "in" / "source"
    content = tar_bytes({name: b"x"}) if kind == "tar" else zip_bytes({name: b"x"})
    write_files(tmp_path / "in", {"source": content})
    with pytest.raises(UserError, match="which points outside the archive"):
        open_tree(source)
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_out_of_a_tar_and_devices_in_it_are_never_read(tmp_path: Path, kind: bytes) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("a/1")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    (tmp_path / "t.tar").write_bytes(made.getvalue())
    with pytest.raises(UserError, match=r"a/1 is (a symbolic link to /etc|a hard link to /etc|neither a file)"):
        open_tree(tmp_path / "t.tar").read("a/1")


def test_absurd_sizes_are_refused_before_reading(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a/huge.png")
    entry.size = 1 << 40
    (tmp_path / "t.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    content = bytearray(zip_bytes({"a/huge.png": b"x" * 100}))
    central = content.index(b"PK\1\2")
    content[central + 24 : central + 28] = (MOST_BYTES + 1).to_bytes(4, "little")
    (tmp_path / "z.zip").write_bytes(content)
    for name in ("t.tar", "z.zip"):
        with pytest.raises(UserError, match=r"huge\.png claims a size of [\d,]+ bytes; the limit is 2,147,483,648"):
            open_tree(tmp_path / name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="sparse claims a size"):
        open_tree(tmp_path).read("sparse")


def test_a_zip_member_does_not_outgrow_the_size_that_it_claims(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 26))
    content = bytearray(made.getvalue())
    for at in (content.index(b"PK\3\4") + 22, content.index(b"PK\1\2") + 24):
        content[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "z.zip").write_bytes(content)
    tree = open_tree(tmp_path / "z.zip")
    with pytest.raises(UserError, match="bomb is damaged"):
        tree.read("bomb")


def test_other_compression_and_encryption_are_named(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(zip_bytes({"a": b"x"}, zipfile.ZIP_LZMA))
    with pytest.raises(UserError, match="a is not compressed by deflate"):
        open_tree(tmp_path / "z.zip")
    content = bytearray(zip_bytes({"a": b"x"}))
    for at in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[at] |= 1
    (tmp_path / "e.zip").write_bytes(content)
    with pytest.raises(UserError, match="a is encrypted; unpack the archive and name its folder"):
        open_tree(tmp_path / "e.zip")


def test_members_without_a_name_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(zip_bytes({"b": b"x", "a": b"y"}).replace(b"b", b"\0"))
    assert open_tree(tmp_path / "z.zip").files == ("a",)


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 31
    (tmp_path / "t.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match="t.tar is damaged or not a valid archive: .* claims a size"):
        open_tree(tmp_path / "t.tar")


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_truncated_archives(tmp_path: Path, kind: str) -> None:
    content = tar_bytes({"a/1": bytes(range(256)) * 40, "a/2": b"x"}, kind)
    (tmp_path / "t").write_bytes(content[: len(content) // 2 if kind else 6000])
    with pytest.raises(UserError, match="t is (damaged|truncated)"):
        open_tree(tmp_path / "t")


TAR, ZIP = tar_bytes({"a/1": b"x" * 600}, ""), zip_bytes({"a/1": b"x" * 600})


@settings(max_examples=100)
@given(
    original=st.sampled_from([TAR[:2048], ZIP, tar_bytes({"a/1": b"x" * 600})]),
    at=st.integers(0, 2047),
    change=st.binary(min_size=1, max_size=12),
    kept=st.one_of(st.none(), st.integers(0, 2048)),
)
def test_fuzzed_archives(
    tmp_path_factory: pytest.TempPathFactory, original: bytes, at: int, change: bytes, kept: int | None
) -> None:
    content = bytearray(original)
    at %= len(content)
    content[at : at + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "fuzzed-archive"
    path.write_bytes(content[:kept])
    try:
        tree = open_tree(path)
        for name in tree.files:
            tree.read(name)
    except UserError as error:
        assert "fuzzed" in str(error)  # noqa: PT017 - what comes out is either files or this


def test_stem() -> None:
    names = ("flower_photos.tgz", "cifar.tar.gz", "breastmnist.npz", "folder", ".zip", "a.b.zip")
    assert [stem(Path(name)) for name in names] == ["flower_photos", "cifar", "breastmnist", "folder", ".zip", "a.b"]

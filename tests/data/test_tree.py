"""Folders and archives as one tree of files; archives that lie."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.data.importers.tree import MOST_BYTES, open_tree, stem
from hpcdd.errors import UserError

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
    with tree.reader() as get:
        for name in (*tree.files, *reversed(tree.files)):
            assert get(name) == FILES[name]


def test_folders_are_sorted_and_links_in_circles_end(tmp_path: Path) -> None:
    write_files(tmp_path, {"b/1": b"", "a/2": b"", "a/10": b""})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    files = open_tree(tmp_path).files
    assert [name for name in files if "up" not in name] == ["a/10", "a/2", "b/1"]
    assert len(files) < 30


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
    with pytest.raises(UserError, match="which leads outside of it"):
        open_tree(source)
    assert list(tmp_path.rglob("*evil*")) == []


def test_links_and_devices_in_a_tar_are_no_files(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"a/{kind.decode()}")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    (tmp_path / "t.tar").write_bytes(made.getvalue())
    assert open_tree(tmp_path / "t.tar").files == ()


def test_absurd_sizes_are_refused_before_reading(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a/huge.png")
    entry.size = 1 << 40
    (tmp_path / "t.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    content = bytearray(zip_bytes({"a/huge.png": b"x" * 100}))
    central = content.index(b"PK\1\2")
    content[central + 24 : central + 28] = (MOST_BYTES + 1).to_bytes(4, "little")
    (tmp_path / "z.zip").write_bytes(content)
    for name in ("t.tar", "z.zip"):
        with pytest.raises(UserError, match=r"huge\.png claims to be [\d,]+ bytes large; 2,147,483,648 are the most"):
            open_tree(tmp_path / name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="sparse claims to be"):
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
    with pytest.raises(UserError, match="a is damaged: .*encrypted"):
        open_tree(tmp_path / "e.zip").read("a")


def test_members_without_a_name_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(zip_bytes({"b": b"x", "a": b"y"}).replace(b"b", b"\0"))
    assert open_tree(tmp_path / "z.zip").files == ("a",)


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 31
    (tmp_path / "t.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match="t.tar is damaged or no tar archive: .* claims to be"):
        open_tree(tmp_path / "t.tar")


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_truncated_archives(tmp_path: Path, kind: str) -> None:
    content = tar_bytes({"a/1": bytes(range(256)) * 40, "a/2": b"x"}, kind)
    (tmp_path / "t").write_bytes(content[: len(content) // 2 if kind else 6000])
    with pytest.raises(UserError, match="t/?.* is (damaged|truncated)"):
        open_tree(tmp_path / "t").read("a/1")


TAR, ZIP = tar_bytes({"a/1": b"x" * 600}, ""), zip_bytes({"a/1": b"x" * 600})


@settings(deadline=None, max_examples=100)
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
        with tree.reader() as get:
            for name in tree.files:
                get(name)
    except UserError as error:
        assert "fuzzed" in str(error)  # noqa: PT017 - what comes out is either files or this


def test_stem() -> None:
    names = ("flower_photos.tgz", "cifar.tar.gz", "breastmnist.npz", "folder", ".zip", "a.b.zip")
    assert [stem(Path(name)) for name in names] == ["flower_photos", "cifar", "breastmnist", "folder", ".zip", "a.b"]

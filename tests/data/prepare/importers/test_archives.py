"""Tar and zip archives: links, sparse files, damage, and what Windows makes; the same as the folder that was packed."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers.archives import open_tree

from .sources import tar_bytes, write_files, zip_bytes

FILES = {"all/1": b"one" * 300, "all/2": b"two", "b/3": b"three"}


def contents(path: Path) -> dict[str, bytes]:
    tree = open_tree(path)
    return {name: tree.read(name) for name in tree.files}


@pytest.mark.parametrize("pack", [zip_bytes, tar_bytes])
def test_threads_read_at_once_from_one_open_file(tmp_path: Path, pack: Callable[..., bytes]) -> None:
    files = {f"{n}": bytes([n]) * (1000 + n) for n in range(50)}
    (tmp_path / "source").write_bytes(pack(files))
    before = os.listdir("/proc/self/fd")
    tree = open_tree(tmp_path / "source")
    with ThreadPoolExecutor(8) as pool:
        names = list(files) * 20
        assert list(pool.map(tree.read, names)) == [files[name] for name in names]
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del tree
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with hard links, links to files and to folders, and links to links."""
    root = write_files(tmp_path / "source", FILES)
    os.link(root / "all/1", root / "b/hard")
    (root / "b/soft").symlink_to("../all/2")
    (root / "c").symlink_to("all")
    (root / "b/through").symlink_to("../c/1")
    (root / "b/twice").symlink_to("soft")
    return root


@pytest.mark.parametrize("order", ["name", "reversed"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_holds_what_the_folder_holds(tmp_path: Path, linked: Path, mode: str, order: str) -> None:
    with tarfile.open(tmp_path / "t.tar", mode) as archive:
        for path in sorted(linked.rglob("*"), reverse=order == "reversed"):
            archive.add(path, path.relative_to(linked), recursive=False)
    assert contents(tmp_path / "t.tar") == contents(linked)
    assert list(contents(linked)) == ["all/1", "all/2", "b/3", "b/hard", "b/soft", "b/through", "b/twice", "c/1", "c/2"]
    assert open_tree(tmp_path / "t.tar").folders == open_tree(linked).folders == ("all", "b", "c")


def test_a_zip_with_links_holds_what_the_folder_holds(tmp_path: Path, linked: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in linked.rglob("*"):
            member = zipfile.ZipInfo(str(path.relative_to(linked)) + "/" * (path.is_dir() and not path.is_symlink()))
            member.create_system, member.external_attr = 3, path.lstat().st_mode << 16
            content = os.readlink(path).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
            archive.writestr(member, content)
    assert stat.S_ISLNK(zipfile.ZipFile(tmp_path / "z.zip").getinfo("c").external_attr >> 16)
    assert contents(tmp_path / "z.zip") == contents(linked)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "gnu"])
def test_sparse_files_in_a_tar(tmp_path: Path, version: str) -> None:
    if shutil.which("tar") is None:
        pytest.fail("GNU tar is needed")
    with (tmp_path / "a").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    form = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    subprocess.run(["tar", "-cSf", "t.tar", *form, "a"], cwd=tmp_path, check=True)
    assert (tmp_path / "t.tar").stat().st_size < 1 << 20
    assert contents(tmp_path / "t.tar") == {"a": (tmp_path / "a").read_bytes()}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../../x", "which points outside the archive; pack it again with links followed"),
        ("/all/1", "which points outside the archive"),
        ("none", "which is not in the archive"),
        ("1", "which leads in a circle; remove the link"),
    ],
)
def test_links_that_lead_nowhere_are_named(tmp_path: Path, target: str, message: str) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("a/1")
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        archive.addfile(entry)
    (tmp_path / "t.tar").write_bytes(made.getvalue())
    with pytest.raises(UserError, match=f"a/1 is a symbolic link to {target}, {message}"):
        open_tree(tmp_path / "t.tar").read("a/1")


def test_of_members_with_one_name_the_last_counts_in_a_tar(tmp_path: Path) -> None:
    """As where files were added again with tar -r or -u."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for content in (b"old", b"newer"):
            entry = tarfile.TarInfo("a")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    (tmp_path / "t.tar").write_bytes(made.getvalue())
    assert contents(tmp_path / "t.tar") == {"a": b"newer"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_with_one_name_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/1", b"one")
        archive.writestr("a/1", b"another")
    with pytest.raises(UserError, match="contains a/1 twice, .*; pack it again"):
        open_tree(tmp_path / "z.zip")


def test_something_below_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(zip_bytes({"a": b"x", "a/1": b"y"}))
    with pytest.raises(UserError, match="contains a both as a folder and as something else"):
        open_tree(tmp_path / "z.zip")


PLAIN = tar_bytes(FILES, "")
MEMBER = PLAIN.index(b"b/3")
"""Where the header of the last file begins."""


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN[:MEMBER], "is truncated: it ends after all/2, without an end-of-archive block; download it again"),
        (PLAIN[: MEMBER + 100], "is truncated: it ends after all/2"),
        (PLAIN[: MEMBER + 512], "is damaged or not a valid archive: unexpected end of data"),
        (PLAIN[:MEMBER] + b"B" + PLAIN[MEMBER + 1 :], "is damaged: at byte .*, after all/2, there is no header"),
        (PLAIN[:MEMBER] + bytes(512) + PLAIN[MEMBER + 512 :] + PLAIN, "continues beyond its end at byte .* holds two"),
        (PLAIN + PLAIN, "continues beyond its end at byte .*, after b/3: .* pack it as one"),
    ],
    ids=["at an edge", "in a header", "in a file", "flipped bit", "zeros for a header", "two archives"],
)
def test_a_tar_that_lacks_members_is_refused(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    (tmp_path / "t").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=f"/t {message}"):
        open_tree(tmp_path / "t")


@pytest.mark.parametrize("missing", [1, 9, 100])
def test_a_truncated_gzip_is_refused(tmp_path: Path, missing: int) -> None:
    (tmp_path / "t").write_bytes(tar_bytes(FILES)[:-missing])
    with pytest.raises(UserError, match="t is damaged .*ended before .*; download it again"):
        open_tree(tmp_path / "t")


def test_what_fills_the_temporary_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").write_bytes(tar_bytes(FILES))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="t unpacks to more than 5 bytes, half of the free space in .*; set TMPDIR"):
        open_tree(tmp_path / "t")


def test_a_zip_made_on_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("b\\", "b\\\xe9t\xe9\\1.png", "a\\2.png"):
            member = zipfile.ZipInfo("x")
            member.filename, member.create_system = name, 0
            archive.writestr(member, name.encode())
    tree = open_tree(tmp_path / "z.zip")
    assert tree.files == ("a/2.png", "b/\xe9t\xe9/1.png")
    assert tree.read("b/\xe9t\xe9/1.png") == "b\\\xe9t\xe9\\1.png".encode()


@pytest.mark.parametrize(("system", "name"), [(3, b"\xe9t\xe9"), (0, b"\x82t\x82"), (3, "\xe9t\xe9".encode())])
def test_names_in_a_zip_that_are_not_said_to_be_utf_8(tmp_path: Path, system: int, name: bytes) -> None:
    content = bytearray(zip_bytes({"n" * len(name): b"x"}).replace(b"n" * len(name), name))
    content[content.index(b"PK\1\2") + 5] = system
    (tmp_path / "z.zip").write_bytes(content)
    assert open_tree(tmp_path / "z.zip").files == ("\xe9t\xe9",)


def test_names_in_a_tar_in_latin_1(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo("\xe9t\xe9/1")
        archive.addfile(entry)
    assert open_tree(tmp_path / "t.tar").files == ("\xe9t\xe9/1",)

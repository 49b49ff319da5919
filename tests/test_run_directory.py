"""The folder of a run: numbered, never overwritten."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcdd.errors import UserError
from hpcdd.run_directory import check_output, create, start_log


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_runs_are_numbered_by_name() -> None:
    assert [str(create(None, "a").path) for _ in range(3)] == ["runs/a-001", "runs/a-002", "runs/a-003"]
    assert create(None, "b").path == Path("runs/b-001")


def test_a_free_number_is_taken_again_and_a_file_counts_as_taken() -> None:
    Path("runs").mkdir()
    Path("runs/a-001").write_text("")
    Path("runs/a-003").mkdir()
    assert [create(None, "a").path.name for _ in range(2)] == ["a-002", "a-004"]


def test_creators_at_the_same_time_get_folders_of_their_own() -> None:
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda _: create(None, "a").path, range(100)))
    assert len(set(paths)) == 100
    assert sorted(path.name for path in paths) == [f"a-{k:03d}" for k in range(1, 101)]


def test_output_is_made_with_its_parents_and_may_exist_if_it_is_empty(tmp_path: Path) -> None:
    Path("empty").mkdir()
    for output in ("deep/er/run", "empty", str(tmp_path / "absolute")):
        directory = create(output, "ignored")
        assert directory.path == Path(output)
        assert directory.log(3) == Path(output) / "logs" / "rank-0003.log"
        assert directory.log(3).parent.is_dir()
    assert not Path("runs").exists()


def test_what_lies_in_a_folder_is_not_overwritten() -> None:
    Path("full").mkdir()
    Path("full/.hidden").write_text("mine")
    for work in (check_output, lambda output: create(output, "a")):
        with pytest.raises(UserError, match="output is full, a folder that is not empty"):
            work("full")
    assert [path.name for path in Path("full").iterdir()] == [".hidden"]
    create("run", "a")
    with pytest.raises(UserError, match="not empty"):  # the same run twice
        create("run", "a")


def test_a_file_is_refused() -> None:
    Path("file").write_text("mine")
    with pytest.raises(UserError, match="output is file, which is a file"):
        check_output("file")
    with pytest.raises(UserError, match=r"can't be made.*--output FOLDER"):
        create("file/below", "a")
    Path("runs").write_text("mine")
    with pytest.raises(UserError, match=r"can't be made.*--output FOLDER"):
        create(None, "a")


def test_check_output_makes_nothing() -> None:
    check_output(None)
    check_output("a/b")
    assert list(Path().iterdir()) == []


def test_the_log_is_appended_to_with_times() -> None:
    directory = create("run", "a")
    directory.log(0).write_text("before\n")
    logger = start_log(directory.log(0))
    (handler,) = logger.handlers
    try:
        logger.info("rank %d of %d", 0, 4)
        logging.getLogger("another").warning("not for this file")
    finally:
        logger.removeHandler(handler)
        handler.close()
    first, second = directory.log(0).read_text().splitlines()
    assert first == "before"
    assert second.startswith("20")
    assert second.endswith(" rank 0 of 4")


def test_a_host_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="on host .*a file system that all hosts share"):
        start_log(tmp_path / "elsewhere" / "logs" / "rank-0000.log")

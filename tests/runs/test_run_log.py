"""The log of each rank: appended to, closed at its end, and the warnings that are printed besides."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hpcdd.core.errors import UserError
from hpcdd.mpi.communicator import world
from hpcdd.runs.run_log import rank_log, warn


def test_the_log_is_appended_to_with_times(tmp_path: Path) -> None:
    path = tmp_path / "rank-0000.log"
    path.write_text("before\n")
    with rank_log(world(), path) as logger:
        logger.info("rank %d of %d", 0, 4)
        logging.getLogger("another").warning("not for this file")
    logger.info("behind the end")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert second.startswith("20")
    assert second.endswith(" rank 0 of 4")


def test_a_host_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    unseen = rank_log(world(), tmp_path / "elsewhere" / "logs" / "rank-0000.log")
    with pytest.raises(UserError, match="on host .*a file system that all hosts share"), unseen:
        pass


def test_a_warning_goes_to_the_user_and_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rank-0000.log"
    with rank_log(world(), path) as logger:
        warn(logger, "the disk is full\x1b[2J")
    printed = capsys.readouterr().err
    assert printed.startswith("hpcdd: warning: the disk is full")
    assert "\x1b" not in printed + path.read_text()
    assert "the disk is full" in path.read_text()

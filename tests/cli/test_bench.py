"""The command line of ``bench``."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.cli import bench
from hpcdd.cli.parser import parse


@pytest.mark.parametrize("name", ["~/tiny.h5", "$DATA/tiny.h5", "${DATA}/tiny.h5"])
def test_bench_io_takes_a_quoted_path_of_a_dataset_file(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A shell expands neither ``~`` nor a variable in single quotes."""
    (tmp_path / "tiny.h5").symlink_to(tiny)
    for variable in ("HOME", "DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    config = bench._config(parse("bench", bench.declare, ["io", name]))
    assert Path(config.data.file) == tmp_path / "tiny.h5"

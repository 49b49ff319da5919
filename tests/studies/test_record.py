"""The file of a study: nothing that stands in it is lost, and nothing else is taken for a measurement."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcdd.errors import UserError
from hpcdd.studies import record


def line(repeat: int) -> dict[str, Any]:
    fields = {"series": "a", "phase": "local", "ranks": 2, "repeat": repeat, "seconds": 0.5, "steps": []}
    return {"hpcdd_scaling": record.FORMAT, **fields}


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.jsonl"
    for repeat in range(3):
        record.append(path, line(repeat))
    assert record.read(path) == [line(repeat) for repeat in range(3)]
    assert [record.key(found) for found in record.read(path)] == [("a", "local", 2, repeat) for repeat in range(3)]


def test_two_jobs_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path, each = tmp_path / "s.jsonl", 50
    program = (
        "import sys; from pathlib import Path; from hpcdd.studies import record\n"
        "for n in range(int(sys.argv[2])): record.append(Path(sys.argv[1]), {'job': sys.argv[3], 'n': n})"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", program, str(path), str(each), job]) for job in "ab"]
    assert [job.wait(60) for job in jobs] == [0, 0]
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert sorted((found["job"], found["n"]) for found in lines) == [(job, n) for job in "ab" for n in range(each)]


def test_half_a_line_of_a_killed_job_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    record.append(path, line(0))
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert record.read(path) == [line(0)]
        record.append(path, line(1))
        assert record.read(path) == [line(0), line(1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"not json\n", ":2 is no measurement of `hpcdd scale`: Expecting value"),
        (b"{}\n", ":2 is no measurement of `hpcdd scale` of format 1"),
        (b'{"hpcdd_scaling": 1, "series": "a"}\n', "its field 'phase' is missing or of a wrong kind"),
    ],
)
def test_something_else_is_refused_and_left_alone(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "s.jsonl"
    record.append(path, line(0))
    path.write_bytes(path.read_bytes() + text)
    with pytest.raises(UserError, match=words):
        record.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        record.read(tmp_path / "s.jsonl")

"""The file of a scaling study: no measurement is lost, and other content is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdd.artifacts import scaling_log
from hpcdd.config.scaling_study import ScalingStudy
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError, WriteError

from ..studies import lines
from ..waiting import LIMIT


def line(repeat: int) -> scaling_log.ScalingLine:
    return lines.line(repeat=repeat)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.jsonl"
    for repeat in range(3):
        scaling_log.append(path, line(repeat))
    assert scaling_log.read(path) == [line(repeat) for repeat in range(3)]
    assert [stored.key[:4] for stored in scaling_log.read(path)] == [("a", "local", 2, repeat) for repeat in range(3)]


def test_the_same_repeat_on_another_layout_is_another_measurement() -> None:
    one, two = (lines.line(layout={**lines.LAYOUT, "ranks_by_host": hosts}) for hosts in ([2], [1, 1]))
    faster = lines.line(layout={**lines.LAYOUT, "ranks_by_host": [2], "processors": ["Q"]})
    assert one.key != two.key != faster.key != one.key
    assert one.key == lines.line(layout=one.layout.model_dump(), job="another", seconds=2.0).key


def test_two_jobs_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path, each = tmp_path / "s.jsonl", 50
    program = (
        "import sys; from pathlib import Path; from hpcdd.artifacts import scaling_log\n"
        "line = scaling_log.ScalingLine.model_validate_json(sys.argv[4])\n"
        "for n in range(int(sys.argv[2])):\n"
        "    scaling_log.append(Path(sys.argv[1]), line.model_copy(update={'job': sys.argv[3], 'repeat': n}))"
    )
    start = [sys.executable, "-c", program, str(path), str(each)]
    jobs = [subprocess.Popen([*start, job, line(0).model_dump_json()]) for job in "ab"]
    assert [job.wait(LIMIT) for job in jobs] == [0, 0]
    appended = sorted((line.job, line.repeat) for line in scaling_log.read(path))
    assert appended == [(job, n) for job in "ab" for n in range(each)]


def test_an_incomplete_line_of_a_killed_job_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    scaling_log.append(path, line(0))
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert scaling_log.read(path) == [line(0)]
        scaling_log.append(path, line(1))
        assert scaling_log.read(path) == [line(0), line(1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"not json\n", ":2 is not a measurement of `hpcdd scale`: content: Invalid JSON: expected"),
        (b"{}\n", ":2 is not a measurement of `hpcdd scale`: series: Field required; remove the line"),
        (b'{"hpcdd_scaling": 2}\n', "hpcdd_scaling: Input should be 1"),
        (b'{"hpcdd_scaling": 1, "series": "a"}\n', "phase: Field required"),
    ],
)
def test_other_files_are_refused_and_not_changed(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "s.jsonl"
    scaling_log.append(path, line(0))
    path.write_bytes(path.read_bytes() + text)
    with pytest.raises(UserError, match=message):
        scaling_log.read(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counting_steps", 0), ("seconds", 0), ("seconds", "1"), ("ranks", 0), ("ranks", True), ("phase", "foo"),
        ("name", "$\\frac$"), ("name", "../a"), ("in_run", {"local": -1}), ("places", [["a", "cpu", 1]]),
        ("machine", {}),
    ],
)  # fmt: skip
def test_what_no_job_has_written_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(lines.fields(**{name: value}) if name != "ranks" else {**lines.fields(), name: value}))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=rf"of `hpcdd scale`: {name}\b.*: .+; remove the line"):
        scaling_log.read(path)


def test_an_unwritable_file_is_refused_before_measuring_and_nothing_is_left_behind(tmp_path: Path) -> None:
    for wrong in (tmp_path, Path("/proc/none/s.jsonl"), tmp_path / ("n" * 300)):
        with pytest.raises(WriteError, match="can't be written"):
            scaling_log.check_writable(wrong)
    scaling_log.check_writable(tmp_path / "new" / "folder" / "s.jsonl")
    assert list(tmp_path.iterdir()) == []
    scaling_log.append(tmp_path / "s.jsonl", line(0))
    scaling_log.check_writable(tmp_path / "s.jsonl")
    assert scaling_log.read(tmp_path / "s.jsonl") == [line(0)]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        scaling_log.read(tmp_path / "s.jsonl")
    assert scaling_log.read(tmp_path / "s.jsonl", may_be_missing=True) == []


def test_a_line_with_fewer_settings_belongs_to_the_series_of_today(tmp_path: Path) -> None:
    """A setting that was added since does not make measurements be repeated."""
    study, config = ScalingStudy(kind="strong").model_dump(mode="json"), Config(seed=4).model_dump(mode="json")
    today = scaling_log.series(study, config)
    del study["warm_up"], config["decomposition"]["uniform"]
    other = {**config, "magic": 3}
    for recorded in (config, other):
        series = scaling_log.series(study, recorded)
        scaling_log.append(tmp_path / "s.jsonl", lines.line(study=study, config=recorded, series=series))
    series_of_lines = [line.series for line in scaling_log.read(tmp_path / "s.jsonl")]
    assert scaling_log.series(study, config) != today
    assert series_of_lines == [today, scaling_log.series(study, other)]

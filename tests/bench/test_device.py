"""``hpcdd bench device`` on a processor: one command, one file, one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpcdd.artifacts import device_file
from hpcdd.bench import alternating, device
from hpcdd.core.errors import UserError
from hpcdd.core.files import read_json
from hpcdd.report import reports


@pytest.mark.bench
def test_one_command_gives_one_file_and_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "MANY", 2)
    monkeypatch.setattr(device, "CASES", tuple(dataclasses.replace(case, batch=16) for case in device.CASES))
    device.run("cpu", tmp_path / "device", rounds=2, steps=2)
    reports.write([tmp_path / "device"])
    report = read_json(tmp_path / "device" / device_file.NAME, device_file.DeviceReport)
    assert (report.kind, report.tests.failed) == ("cpu", 0), report.tests.output
    assert report.tests.passed > 5
    ways = {(way.case, way.way, way.cnns) for way in report.measurements}
    assert {case for case, _, _ in ways} == {case.label for case in device.CASES}
    assert len(ways) == len(report.measurements)
    many = {way.way: way for way in report.measurements if way.cnns == device.MANY}
    assert {"hpcdd, fp32, batched", "hpcdd, fp32, one after the other"} <= many.keys()
    assert all(0 < way.factor[0] <= way.factor[2] for way in report.measurements)
    assert any("torch.compile" in line for line in report.left_out)
    page = (tmp_path / "device/report.html").read_text()
    assert all(case.label in page for case in device.CASES)
    assert "results: " in capsys.readouterr().out


def test_ways_are_compared_by_a_step_of_all_their_cnns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a step of the loop trains all four CNNs in three seconds, or one of them in one."""
    clock = 0.0

    def takes(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    class Plain:
        def step(self) -> None:
            takes(2.0)

    monkeypatch.setattr(alternating.time, "perf_counter", lambda: clock)
    plain = [Plain() for _ in range(4)]
    batched = device._Way("batched", device._stepping(lambda: takes(3.0)), cnns=4, at_once=4)
    in_order = device._Way("one after the other", device._stepping(lambda: takes(1.0)), cnns=4)
    for way, seconds, factor in ((batched, 3.0, 8 / 3), (in_order, 4.0, 2.0)):
        measured = device._measured_way(device.CASES[0], "cpu", way, plain, rounds=2, steps=8)  # type: ignore[arg-type]
        assert (measured.seconds[1], measured.reference[1]) == (seconds, 8.0)
        assert measured.factor == pytest.approx((factor,) * 3)


def test_nothing_is_overwritten_and_no_gpu_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / device_file.NAME).write_text("{}")
    with pytest.raises(UserError, match="name another folder"):
        device.run("cpu", tmp_path, rounds=1, steps=1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU here"):
        device.run("cuda", tmp_path / "new", rounds=1, steps=1)


def test_tests_that_fail_or_are_not_there_are_reported(tmp_path: Path) -> None:
    assert "is not a checkout" in device.run_tests("cpu", tmp_path).reason
    folder = tmp_path / "tests/device"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = device\n")
    (folder / "test_it.py").write_text(
        "import pytest\npytestmark = pytest.mark.device\ndef test_a(): pass\ndef test_b(): assert 0\n"
        "@pytest.mark.skip\ndef test_c(): pass\n"
    )
    tests = device.run_tests("cpu", tmp_path)
    assert (tests.passed, tests.failed, tests.skipped) == (1, 1, 1)
    (folder / "test_it.py").write_text("import nothing_of_that_name\n")
    assert device.run_tests("cpu", tmp_path).failed == 1


def test_a_missing_pytest_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then prints nothing but an error, and exits with 1 as pytest does for tests that fail."""
    (tmp_path / "tests/device").mkdir(parents=True)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named pytest >&2\nexit 1\n")
    python.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(python))
    tests = device.run_tests("cpu", tmp_path)
    assert (tests.passed, tests.failed) == (0, 1)
    assert "No module named pytest" in tests.output

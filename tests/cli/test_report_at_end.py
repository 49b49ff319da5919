"""The report at the end of a run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdd.cli import train
from hpcdd.core.errors import UserError
from hpcdd.report import page, reports

from ..bad_input.outcome import check_text
from ..report import made_run


@pytest.mark.parametrize("error", [UserError("there is no room"), RuntimeError("a defect")], ids=["room", "defect"])
def test_a_run_without_its_report_is_complete(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(reports, "write", fail)
    train.write_report(Path("runs/x"))
    reason = "there is no room" if isinstance(error, UserError) else "RuntimeError: a defect"
    printed = capsys.readouterr()
    assert printed.out == ""
    check_text(
        printed.err, f"hpcdd: warning: the report was not written ({reason}); run `hpcdd report runs/x` to write it\n"
    )


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = made_run.run(tmp_path / "run")
    monkeypatch.setattr(page, "write_bytes", fail)
    train.write_report(folder)
    why = f"{folder} can't be written: No space left on device"
    check_text(
        capsys.readouterr().err,
        f"hpcdd: warning: the report was not written ({why}); run `hpcdd report {folder}` to write it\n",
    )
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_without_matplotlib() -> None:
    program = (
        "import sys; from pathlib import Path; sys.modules['matplotlib'] = None\n"
        "from hpcdd.cli import train; train.write_report(Path('runs/x'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(
        "hpcdd: warning: the report was not written (ModuleNotFoundError: import of matplotlib"
    )
    assert done.stderr.count("\n") == 1

"""The report at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.errors import UserError
from hpcdd.report import at_end, command


@pytest.mark.parametrize("error", [UserError("there is no room"), RuntimeError("a defect")], ids=["room", "defect"])
def test_a_run_without_its_report_is_complete_all_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "write", fail)
    at_end.write(Path("runs/x"))
    told = "there is no room" if isinstance(error, UserError) else "RuntimeError: a defect"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"hpcdd: warning: no report ({told}); `hpcdd report runs/x` makes it\n")

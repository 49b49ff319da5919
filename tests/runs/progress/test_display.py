"""What each display shows; the live one on a real pseudo-terminal."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import math
import os
import pty
import re
import struct
import termios
import threading
from typing import Literal, TextIO

import pytest

from hpcdd.core.errors import UserError
from hpcdd.core.seeding import WHOLE
from hpcdd.mpi.launcher import Launch
from hpcdd.runs.progress.display import LineDisplay, make_display
from hpcdd.runs.progress.live import LiveDisplay
from hpcdd.training.status import Status

from ...waiting import LIMIT

NOT_LAUNCHED = Launch("none", 0, 1)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def status(subdomain: int = 3, epoch: int = 2, **changes: object) -> Status:
    phase = "dnn" if subdomain == WHOLE else "local"
    whole = Status(phase, subdomain, epoch, 8, epoch / 8, 0.75432, 0.61239, 0.8, 0.5871, 1e-3, 30.0, 12345.6)
    return dataclasses.replace(whole, **changes)


def line(shown: Status, *, end_of_epoch: bool = True) -> str:
    out = io.StringIO()
    display = LineDisplay(out)
    display.begin(shown.phase, [shown.subdomain])
    display.show(shown, end_of_epoch)
    display.close()
    return out.getvalue()


def test_a_line_holds_all_that_one_wants_to_know() -> None:
    text = line(status())
    for part in ("local", "subdomain 3", "2/8", "loss 0.7543", "accuracy 0.6124", "validation 0.5871"):
        assert part in text
    assert "12,346 samples/s" in text
    assert "1:30 left" in text  # 30 s for a quarter
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_line_without_validation_and_one_of_the_dnn() -> None:
    assert "validation" not in line(status(validation_loss=None, validation_accuracy=None))
    assert re.match(r"DNN +epoch +2/8", line(status(WHOLE)))


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("dnn", "DNN"),
        ("coherent_transfer", "coherent model (transfer)"),
        ("coherent_scratch", "coherent model (scratch)"),
        ("global", "global CNN"),
    ],
)
def test_lines_of_networks_that_belong_to_all_are_aligned_with_those_of_subdomains(phase: str, name: str) -> None:
    whole, local = line(status(WHOLE, phase=phase)), line(status(12_345))
    assert re.match(rf"{re.escape(name)} +epoch", whole)
    assert re.match(r"local subdomain 12345 +epoch", local)
    assert whole.index("epoch") == local.index("epoch")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"fraction": 0.5, "seconds": 59.4}, "0:59"),
        ({"fraction": 0.5, "seconds": 61.0}, "1:01"),
        ({"fraction": 0.25, "seconds": 3600.0}, "3:00:00"),
        ({"fraction": 1.0, "seconds": 10.0}, "0:00"),
        ({"fraction": 0.0, "seconds": 0.0}, "-:--"),
        ({"fraction": 0.5, "seconds": 100.0, "finished": True}, "0:00"),  # stopped early
    ],
)
def test_time_left(changes: dict[str, float], left: str) -> None:
    assert f"  {left} left" in line(status(**changes))


def test_lines_are_printed_at_ends_of_epochs_only() -> None:
    assert line(status(), end_of_epoch=False) == ""


def test_off_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    display = make_display("off", NOT_LAUNCHED, out)
    assert display.interval == math.inf
    display.begin("local", [3])
    display.show(status(), True)
    display.close()
    assert (*capfd.readouterr(), out.getvalue()) == ("", "", "")


@pytest.mark.parametrize("setting", ["auto", "lines"])
def test_without_a_terminal_there_are_lines(setting: Literal["auto", "lines"]) -> None:
    out = io.StringIO()
    display = make_display(setting, NOT_LAUNCHED, out)
    assert isinstance(display, LineDisplay)
    assert display.interval == math.inf, "statuses within an epoch need not be sent"
    display.show(status(), True)
    assert "subdomain 3" in out.getvalue()


@pytest.mark.parametrize("launch", [NOT_LAUNCHED, Launch("mpich", 0, 2), Launch("slurm", 0, 2)])
def test_live_without_a_terminal_is_the_users_error(launch: Launch) -> None:
    with pytest.raises(UserError, match=r"has no terminal.*--progress lines"):
        make_display("live", launch, io.StringIO())


class Terminal:
    """A pseudo-terminal of a given size, and what has been drawn on it."""

    def __init__(self, lines: int, columns: int) -> None:
        self._main, self._side = pty.openpty()
        fcntl.ioctl(self._side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._main, 1 << 16):
                self._parts.append(part)
        except OSError:  # the last writer has gone
            return

    def open(self) -> TextIO:
        return os.fdopen(os.dup(self._side), "w", encoding="utf-8")

    def drawn(self) -> str:
        os.close(self._side)
        self._reader.join(LIMIT)
        os.close(self._main)
        return b"".join(self._parts).decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal(24, 110)


def run_both_phases(display: LiveDisplay) -> None:
    display.begin("local", range(4))
    for subdomain in range(3):  # the last one never reports
        display.show(status(subdomain, 4, loss=float(subdomain)), False)
    display.show(status(1, 5), True)
    display.begin("dnn", [WHOLE])
    display.show(status(WHOLE, 8, finished=True), True)
    display.close()
    display.close()  # a run closes it before its table, and once more at its end


def test_live_shows_every_subdomain_and_both_phases(terminal: Terminal) -> None:
    opened = terminal.open()
    run_both_phases(LiveDisplay(opened, keep_open=True))
    assert not opened.closed
    opened.close()
    drawn = terminal.drawn()
    assert "\x1b[1A\x1b[2K" in drawn, "rows are redrawn in place"
    last = ESCAPE.sub("", drawn.rpartition("\x1b[1A\x1b[2K")[2]).splitlines()
    assert [re.split(r" [━╸╺]", row)[0].strip() for row in last] == [
        "local subdomain 0", "local subdomain 1", "local subdomain 2", "local subdomain 3", "DNN",
    ]  # fmt: skip
    assert "epoch 5/8  loss 0.000  acc 0.612  val 0.587  12,346/s  0:30" in last[0]
    assert "epoch 5/8  loss 0.754" in last[1]
    assert "waiting" in last[3]
    assert "epoch 8/8" in last[4]
    assert "0:00" in last[4]
    assert max(len(row) for row in last) <= 110


def test_live_leaves_the_cursor_visible_and_the_line_free(terminal: Terminal) -> None:
    opened = terminal.open()
    run_both_phases(LiveDisplay(opened, keep_open=True))
    opened.close()
    drawn = terminal.drawn()
    assert "\x1b[?25l" not in drawn, "a job that is killed could not bring a hidden cursor back"
    assert ESCAPE.sub("", drawn).endswith("\n")


def test_live_closes_a_terminal_that_was_opened_for_it(terminal: Terminal) -> None:
    opened = terminal.open()
    run_both_phases(LiveDisplay(opened, keep_open=False))
    assert opened.closed
    assert re.search(r"^DNN ", ESCAPE.sub("", terminal.drawn()), re.MULTILINE)


def test_live_that_never_began_can_be_closed(terminal: Terminal) -> None:
    opened = terminal.open()
    LiveDisplay(opened, keep_open=False).close()
    assert opened.closed
    assert "subdomain" not in terminal.drawn()


def test_live_fits_into_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    narrow = Terminal(10, 40)
    opened = narrow.open()
    run_both_phases(LiveDisplay(opened, keep_open=False))
    rows = ESCAPE.sub("", narrow.drawn()).replace("\r", "\n").splitlines()
    assert max(len(row) for row in rows) <= 40
    assert any(row.startswith("DNN") for row in rows)

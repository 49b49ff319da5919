"""What names can do to terminals and spreadsheets, and no longer do."""

from __future__ import annotations

import csv
import io
import os

import pytest

from hpcdd.core.texts import csv_text, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("a\rb\nc\td\0", r"a\rb\nc\td\x00"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\u202etxt.exe\u2066", r"a\u202etxt.exe\u2066"),
        (os.fsdecode(b"\xe9t\xe9"), r"\udce9t\udce9"),
        ("\u0645\u06cc\u200c\u0634\u0648\u062f \xfc\u8eca", "\u0645\u06cc\u200c\u0634\u0648\u062f \xfc\u8eca"),
        (r"a\n", r"a\n"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-cat", "'-cat"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"\t=1"),
        ("\r=1", r"\r=1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        (-0.5, "-0.5"),
        (None, ""),
        ("a=b", "a=b"),
        ('a,"b"', 'a,"b"'),
    ],
)
def test_no_text_is_a_formula_of_a_spreadsheet(cell: str | float | None, written: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text([["x", cell]])))) == [["x", written]]

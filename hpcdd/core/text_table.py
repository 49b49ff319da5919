"""Tables on the terminal."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.table import Table

_IN_A_FILE = 200
"""Characters of a line where the output is no terminal."""


def print_table(title: str, head: Sequence[str], body: Sequence[Sequence[str]], out: TextIO, labels: int = 1) -> None:
    """Prints a table; one without rows is left out.

    Args:
        title: above it.
        head: of each column.
        body: of each row the cells.
        out: where to print; cells wrap where it is a terminal and narrower than the table.
        labels: columns at the left that hold words; the others hold numbers.
    """
    from rich.table import Table
    from rich.text import Text

    if not body:
        return
    table = Table(title=Text(title), title_justify="left")
    for column, heading in enumerate(head):
        table.add_column(Text(heading), justify="left" if column < labels else "right")
    for row in body:
        table.add_row(*map(Text, row))
    # The pseudo-terminal of a rank under Open MPI has no width.
    width = shutil.get_terminal_size((_IN_A_FILE, 24)).columns if out.isatty() else _IN_A_FILE
    print_plain(table, width, out)


def print_plain(table: Table, width: int, out: TextIO) -> None:
    """Prints a table as plain text.

    Under Open MPI a rank writes to a pseudo-terminal even where the job writes to a file; and a console of rich's ends
    the process where its file is a pipe that nobody reads any more.
    """
    from rich.console import Console

    drawn = io.StringIO()
    Console(file=drawn, width=width, highlight=False, force_terminal=False).print(table)
    print(drawn.getvalue(), end="", file=out)

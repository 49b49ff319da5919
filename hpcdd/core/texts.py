"""Names that others have given, in what people read: nothing in them acts on a terminal, a page or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def printable(text: str) -> str:
    r"""A text in one line in which what a terminal would obey is written out, as Python writes it.

    That are control characters (line breaks too), those that turn the direction of what follows (U+202A to U+202E,
    U+2066 to U+2069), and bytes of file names that are no text. Joiners and marks of zero width stay: there are
    languages that need them.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return _ACTING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """The same of a text in lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def hint(name: str, names: Iterable[str], fallback: str, prefix: str = "") -> str:
    """What to say behind an unknown name: the most similar known one, or a fallback.

    Args:
        name: what was found; may have the name of a section in front, with a dot.
        names: those that are known. The same one in another section is the nearest, then those of its section.
        fallback: what to say if no known name is similar.
        prefix: in front of the nearest one.

    >>> hint("local.epoch", ["local.epochs", "data.file"], "")
    '; did you mean local.epochs?'
    """
    import difflib

    known = list(names)
    section, _, last = name.rpartition(".")
    within = [full for full in known if section and full.startswith(f"{section}.")]
    same = [full for full in known if full.rpartition(".")[2] == last]
    close = difflib.get_close_matches(name, same, n=1, cutoff=0.0) or _similar(last, within)
    if not close and not within:  # else the section's own name makes everything in it look similar
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    close = close or _similar(last, known)
    return f"; did you mean {prefix}{close[0]}?" if close else f"; {fallback}"


def _similar(last: str, names: Sequence[str]) -> list[str]:
    """Of some full names the one whose last part is most similar."""
    import difflib

    by_last = {full.rpartition(".")[2]: full for full in reversed(names)}
    return [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]


def csv_text(rows: Iterable[Sequence[str | float | None]]) -> str:
    """CSV that a spreadsheet can open: texts that it would run as formulas have an apostrophe in front.

    These begin with ``=``, ``+``, ``-`` or ``@`` (OWASP, CSV Injection; tabs and carriage returns are written out).
    Numbers stay numbers.
    """
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return made.getvalue()


def _cell(value: str | float | None) -> str | float | None:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text

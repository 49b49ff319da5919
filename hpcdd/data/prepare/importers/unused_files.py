"""What of a source is not used, counted by folder, suffix and reason, so that nothing is left out without a word."""

from __future__ import annotations

from collections import Counter

_FOLDERS = 3
_LINES = 12


def suffix_of(name: str) -> str:
    """The suffix of a file, in lower case; empty for none.

    >>> suffix_of("a/Scan.HEIC"), suffix_of("a.b/README"), suffix_of("a/.hidden")
    ('.heic', '', '')
    """
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    return base[dot:].lower() if dot > 0 else ""


class Unused:
    """Counts of what is not used."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str, str]]()

    def add(self, name: str, reason: str) -> None:
        """A file by its name in the source, and why it is not used."""
        self.add_to(name.rpartition("/")[0], suffix_of(name) or "without suffix", reason)

    def add_to(self, folder: str, what: str, reason: str) -> None:
        """One more ``what`` in a folder (empty: the source itself)."""
        self._counts[folder, what, reason] += 1

    def lines(self) -> list[str]:
        """A line for each kind of file and reason, the most frequent first; none where all is used.

        >>> unused = Unused()
        >>> unused.add("c/1.heic", "no suffix of images"); unused.add("c/2.heic", "no suffix of images")
        >>> unused.lines()
        ['not used: 2 .heic in c (no suffix of images)']
        """
        kinds: dict[tuple[str, str], Counter[str]] = {}
        for (folder, what, reason), count in self._counts.items():
            kinds.setdefault((what, reason), Counter())[folder] += count
        ranked = sorted(kinds.items(), key=lambda kind: (-kind[1].total(), kind[0]))
        lines = [
            f"not used: {folders.total():,} {what} in {_places(folders)} ({reason})"
            for (what, reason), folders in ranked[:_LINES]
        ]
        if rest := ranked[_LINES:]:
            files = sum(folders.total() for _, folders in rest)
            lines.append(f"not used: {files:,} more files, of {len(rest)} further types")
        return lines


def _places(folders: Counter[str]) -> str:
    names = [folder or "the top folder" for folder in sorted(folders, key=lambda folder: (-folders[folder], folder))]
    more = len(names) - _FOLDERS
    return ", ".join(names[:_FOLDERS]) + (f" and {more:,} more folders" if more > 0 else "")

"""The documentation: its pages, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(text: str, marker: str) -> list[tuple[str, str]]:
    """Fenced blocks behind a comment that begins so: the rest of the comment, and the block's lines."""
    matches = re.findall(rf"<!-- {marker}:? ?(.*?) ?-->\n```\w*\n(.*?)```", text, re.DOTALL)
    return [(rest, body.rstrip("\n")) for rest, body in matches]


_AROUND = re.compile(
    r"(?:\w+=\S+ |mpirun (?:-\S+ \S+ )*|cd \S+ && |for .*? do )*(?:python -m )?hpcdd (.*?)(?:; done)?$"
)


def commands(text: str) -> list[str]:
    """The lines of fenced blocks that call hpcdd, without comments and what stands around the call."""
    lines = [
        re.sub(r"\s+#.*$", "", line)
        for body in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in body.replace("\\\n", " ").splitlines()
    ]
    return [match[1] for line in lines if (match := _AROUND.match(line))]

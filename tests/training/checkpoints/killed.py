"""``python killed.py FOLDER``: processes that save are killed before and within each of their system calls.

After each death the newest checkpoint that is whole is looked for. Prints a JSON object: how often the checkpoint
before and how often the new one was found, and what was complained of.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.training.checkpoints.test_store import manager, same, save, snapshot

CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir")


def deadly(number: int, *, within: bool) -> None:
    """Patches system calls: the one of this number is the last; a write has written half then, if ``within``."""
    count = 0

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if within and name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                elif within:
                    call(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def main() -> None:
    folder = Path(sys.argv[1])
    save(folder / "before", 1, 2)
    outcomes: Counter[str] = Counter()
    said: list[str] = []
    for within in (False, True):
        number, alive = 0, False
        while not alive:
            number += 1
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(folder / "before", work)
            child = os.fork()
            if child == 0:
                deadly(number, within=within)
                save(work, 3)
                os._exit(0)
            alive = os.waitpid(child, 0)[1] == 0
            newest = manager(work, said).load()
            kind = next((str(epoch) for epoch in (2, 3) if same(newest, snapshot(epoch))), "wrong")
            outcomes[kind] += 1
            save(work, 4)  # what is left half written is no obstacle
            outcomes["next"] += same(manager(work, said).load(), snapshot(4))
    print(json.dumps({"outcomes": outcomes, "said": said}))


if __name__ == "__main__":
    main()

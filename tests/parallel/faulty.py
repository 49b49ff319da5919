"""``python faulty.py PHASE RANK WHAT [hpcdd's arguments]``: hpcdd with a fault in one phase of one rank.

WHAT is ``raise`` (an exception), or the name of a signal that the rank sends itself, such as ``SIGTERM``. The moment
of the fault is written to the file ``fault`` in the current folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcdd import cli, launch, run

PLACES = {
    "read": "pose",
    "local": "train_local_cnns",
    "gather": "gather_logits",
    "dnn": "train_dnn",
    "record": "write_model",
}


def main() -> int:
    phase, rank, what, *arguments = sys.argv[1:]
    healthy: Callable[..., Any] = getattr(run, PLACES[phase])

    def fault() -> None:
        Path("fault").write_text(str(time.time()))
        if what == "raise":
            raise RuntimeError(f"planted in phase {phase}")
        os.kill(os.getpid(), signal.Signals[what])

    def faulty(*args: Any, **kwargs: Any) -> Any:
        if phase == "local" and what != "raise":
            # In the middle of an epoch, which is where a batch system's signal finds a rank.
            config, place, samples, num_classes, width, hooks = args
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 1
                if steps == 7:
                    fault()
                hooks.step()

            args = (config, place, samples, num_classes, width, type(hooks)(step, hooks.due, hooks.status, hooks.epoch))
            return healthy(*args, **kwargs)
        fault()
        return healthy(*args, **kwargs)

    if launch.from_environment().rank == int(rank):
        setattr(run, PLACES[phase], faulty)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

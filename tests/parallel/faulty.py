"""``python faulty.py PHASE RANK WHAT [hpcdd's arguments]``: hpcdd with a fault in one phase of one rank.

WHAT is ``raise`` (an exception), ``drift`` (a parameter changes by itself, in the coherent phase), or the name of a
signal that the rank sends itself, such as ``SIGTERM``. The moment of the fault is written to the file ``fault`` in the
current folder, and in the coherent phase each rank writes the number of steps that it began to ``steps-RANK``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hpcdd import cli, launch, record, run, session
from hpcdd.errors import StopRequest
from hpcdd.phases import coherent

PLACES = {
    "read": (session, "pose"),
    "local": (run, "train_local_cnns"),
    "gather": (run, "gather_logits"),
    "dnn": (run, "train_dnn"),
    "coherent": (coherent, "train"),
    "record": (record, "write_model"),
}


def main() -> int:
    phase, rank, what, *arguments = sys.argv[1:]
    room, name = PLACES[phase]
    healthy: Callable[..., Any] = getattr(room, name)
    here = launch.from_environment().rank
    chosen = here == int(rank)

    def fault(network: torch.nn.Module | None = None) -> None:
        Path("fault").write_text(str(time.time()))
        if what == "raise":
            raise RuntimeError(f"planted in phase {phase}")
        if what == "drift":
            assert network is not None
            with torch.no_grad():
                network.dnn.bias[0] += 1e-6  # type: ignore[union-attr, operator]
        else:
            os.kill(os.getpid(), signal.Signals[what])

    def in_the_middle(*args: Any, **kwargs: Any) -> Any:
        """At the seventh step, which is where a batch system's signal finds a rank."""
        # Local: (config, place, samples, num_classes, width, hooks, share); coherent: hooks is a keyword.
        hooks = kwargs.get("hooks") or args[5]
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == 7 and chosen:
                fault(args[0] if phase == "coherent" else None)
            hooks.step()

        watched = replace(hooks, step=step)
        if "hooks" in kwargs:
            kwargs["hooks"] = watched
        else:
            args = (*args[:5], watched, *args[6:])
        try:
            return healthy(*args, **kwargs)
        except StopRequest:
            Path(f"steps-{here}").write_text(str(steps))
            raise

    def at_the_start(*args: Any, **kwargs: Any) -> Any:
        fault()
        return healthy(*args, **kwargs)

    if phase == "coherent" or (phase == "local" and what != "raise" and chosen):
        setattr(room, name, in_the_middle)
    elif chosen:
        setattr(room, name, at_the_start)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""``python faulty.py PHASE RANK WHAT [hpcdd's arguments]``: hpcdd with a fault in one phase of one rank.

WHAT is ``raise`` (a RuntimeError) or the name of an exception of Python's or hpcdd's, see :func:`exception`, ``drift``
(a parameter changes by itself, in the coherent phase), ``hang`` (the step never ends), ``pause`` (the step waits for a
signal), ``unlike`` (from there on the common layers of the coherent model are rounded otherwise in every step, as on a
processor of another kind, which the rank says that it has), or the name of a signal that the rank sends itself, such as
``SIGTERM``. In phases that train, ``WHAT@STEP`` names the step at which it happens, default 7, counted over all
trainings of the phase on this rank. The moment of the fault is written to the file ``fault`` in the current folder,
and where a request to stop ends a training, each rank writes the number of steps that it began to ``steps-RANK``.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch

from hpcdd.cli import main as cli
from hpcdd.core import errors
from hpcdd.core.devices import arithmetic_of
from hpcdd.core.errors import StopRequest
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import launcher
from hpcdd.mpi.launcher import SIGNALS
from hpcdd.phases import aggregation, coherent, global_cnn, local

TRAININGS = {"local": local, "dnn": aggregation, "coherent": coherent, "baseline": global_cnn}
OTHERS = {
    "start": ("hpcdd.runs.context", "form_team"),
    "problem": ("hpcdd.runs.context", "build_problem"),
    "read": ("hpcdd.runs.pipeline:Run", "_read"),
    "pixels": ("hpcdd.data.reading:BoxReader", "_fill"),
    "restore": ("hpcdd.runs.pipeline", "spread_dnn"),
    "agreement": ("hpcdd.runs.failure_policy:FailurePolicy", "agree"),
    "checkpoint": ("hpcdd.training.checkpoints.manager:CheckpointManager", "save"),
    "gather": ("hpcdd.runs.pipeline", "gather_features"),
    "evaluation": ("hpcdd.runs.pipeline", "rule_accuracies"),
    "examination": ("hpcdd.runs.pipeline", "Attribution"),
    "record": ("hpcdd.runs.finalize", "write_model"),
    "collect": ("hpcdd.runs.finalize", "collect_dnn"),
    "report": ("hpcdd.cli.train", "write_report"),
    "evaluate": ("hpcdd.inference.evaluate", "rule_accuracies"),
    "scale": ("hpcdd.studies.scaling_point:ScalingPoint", "measure"),
    "bench": ("hpcdd.bench.collectives", "_measure"),
}
"""By phase or command a function that every rank calls there; root alone what builds problems and writes models."""


@contextlib.contextmanager
def counted_signals() -> Iterator[list[int]]:
    """The list of the signals that have come, which hpcdd's own handlers see as well."""
    come: list[int] = []
    handlers: dict[int, Any] = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def handler(signum: int, frame: FrameType | None) -> None:
        come.append(signum)
        handlers[signum](signum, frame)

    for signum in handlers:
        signal.signal(signum, handler)
    yield come
    for signum, original in handlers.items():
        signal.signal(signum, original)


@contextlib.contextmanager
def planted(phase: str, specification: str, here: int, *, chosen: bool) -> Iterator[None]:
    """Inside the ``with`` block the fault waits for its moment.

    Args:
        phase: see above.
        specification: WHAT or WHAT@STEP.
        here: number of this rank.
        chosen: whether it is this rank that has the fault.
    """
    what, _, at = specification.partition("@")
    steps = 0

    def fault(network: torch.nn.Module | None = None) -> None:
        if what == "pause":
            with counted_signals() as come:
                Path("fault").write_text(str(time.time()))
                while not come:
                    time.sleep(0.05)
            return
        Path("fault").write_text(str(time.time()))
        if (planted := exception(what, f"planted in phase {phase}")) is not None:
            raise planted
        if what == "hang":
            while True:
                time.sleep(1)
        if what == "drift":
            assert network is not None
            with torch.no_grad():
                network.dnn.bias[0] += 1e-6  # type: ignore[union-attr, operator]
        else:
            os.kill(os.getpid(), signal.Signals[what])

    def in_the_middle(healthy: Callable[..., Any]) -> Callable[..., Any]:
        def train(network: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            hooks = kwargs["hooks"]

            def step() -> None:
                nonlocal steps
                steps += 1
                if steps == int(at or 7) and chosen and what != "unlike":
                    fault(network)
                elif steps >= int(at or 7) and chosen and what == "unlike":  # a signal may be seen a step later
                    with torch.no_grad():
                        for p in network.dnn.replicated():  # type: ignore[union-attr, operator]
                            p.mul_(1 + 2**-23)
                hooks.step()

            try:
                return healthy(network, *args, **{**kwargs, "hooks": replace(hooks, step=step)})
            except StopRequest:
                Path(f"steps-{here}").write_text(str(steps))
                raise

        return train

    def at_the_start(healthy: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any, **kwargs: Any) -> Any:
            fault()
            return healthy(*args, **kwargs)

        return work

    arithmetic = (lambda *_: "another processor") if what == "unlike" and chosen else arithmetic_of
    if phase in TRAININGS:
        room = TRAININGS[phase]
        names = [name for name in ("train", "train_batched") if hasattr(room, name)]
        trainings = {name: in_the_middle(getattr(room, name)) for name in names}
        with mock.patch.multiple(room, **trainings), mock.patch.object(rank_layout, "arithmetic_of", arithmetic):
            yield
    elif chosen:
        location, name = OTHERS[phase]
        other = pkgutil.resolve_name(location)
        with mock.patch.object(other, name, at_the_start(getattr(other, name))):
            yield
    else:
        yield


def exception(name: str, text: str) -> BaseException | None:
    """The exception of a name, Python's or hpcdd's, that this rank has not agreed on with any other; None of no name.

    Args:
        name: such as ``UserError``; ``raise`` is a RuntimeError.
        text: what it says.
    """
    if name == "StopRequest":
        return StopRequest(signal.SIGTERM, text)
    if name == "RunError":
        return errors.RunError(text, 1)
    kind = RuntimeError if name == "raise" else getattr(errors, name, getattr(builtins, name, None))
    return kind(text) if isinstance(kind, type) and issubclass(kind, BaseException) else None


def main() -> int:
    phase, rank, specification, *arguments = sys.argv[1:]
    here = launcher.from_environment().rank
    with planted(phase, specification, here, chosen=here == int(rank)):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

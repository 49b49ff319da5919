"""Made-up machines, whose measurements are as the tests need them."""

from __future__ import annotations

from typing import Any

from hpcdd.plan.machine import Machine

_STEP = {
    "kind": "cnn",
    "network": "other",
    "batch": 32,
    "summands": 1,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "busy": 1,
    "flops": 10**6,
    "date": "2026-11-26",
}
_FIT = {"between_hosts": False, "oversubscribed": False, "latency": 1e-5, "seconds_per_byte": 1e-9}


def step(seconds: float, **more: Any) -> dict[str, Any]:
    """A measured unit of work."""
    return {**_STEP, "seconds": [seconds] * 3, **more}


def machine(
    *, steps: list[dict[str, Any]] | None = None, fits: list[dict[str, Any]] | None = None, cores: int = 4
) -> Machine:
    """By default one on which every unit of work takes a nanosecond for each operation."""
    if steps is None:
        steps = [step(1e-3, kind=kind) for kind in ("cnn", "evaluation", "dnn", "head")]
    if fits is None:
        fits = [{"collective": name} for name in ("allreduce", "gather", "broadcast", "scatter", "allgather")]
    return Machine.model_validate(
        {
            "host": {"processor": "P", "cores": cores, "memory_bytes": 1 << 34},
            "mpi_library": "M",
            "torch": "T",
            "runtime_bytes": 300 << 20,
            "steps": steps,
            "fits": [_FIT | fit for fit in fits],
        }
    )

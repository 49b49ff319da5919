"""Lines of a study's file, whole and as the tests want them."""

from __future__ import annotations

import json
from typing import Any

from hpcdd.artifacts.scaling_log import ScalingLine

LAYOUT = {"ranks_by_host": [1], "processors": ["P"], "devices": ["cpu"], "mpi_library": "M, 1", "torch": "2"}
_FIELDS = {
    "hpcdd_scaling": 1,
    "series": "a",
    "phase": "local",
    "ranks": 2,
    "repeat": 0,
    "layout": LAYOUT,
    "name": "known",
    "kind": "strong",
    "job": "j",
    "seconds": 0.5,
    "counting_steps": 10,
    "steps": [{"slowest": 0.05, "fastest": 0.04, "warm_up": False}],
    "calls_per_step": 1.0,
    "bytes_per_step": 0.0,
    "threads": 1,
    "time": "2026-11-26",
    "subdomains": 4,
    "image_shape": [1, 8, 8],
    "replicas": 1,
    "parameters": {},
    "in_run": {"local": 100, "gather": 1, "dnn": 50, "coherent": 200},
    "reading_seconds": 0.1,
    "machine": {
        "platform": "Linux",
        "cores": 8,
        "cores_in_affinity_mask": 4,
        "memory_bytes": 1 << 30,
        "mpi_library": "M, 1",
        "packages": {"hpcdd": "0"},
    },
    "job_ranks": 4,
    "study": {"kind": "strong"},
    "config": {"name": "known"},
}


def fields(**more: Any) -> dict[str, Any]:
    """The fields of a line, as JSON has them."""
    line_fields = {**_FIELDS, **more}
    return {"places": [["a", "cpu", 1, 1]] * line_fields["ranks"], **line_fields}


def line(**more: Any) -> ScalingLine:
    """A measurement."""
    return ScalingLine.model_validate_json(json.dumps(fields(**more)))

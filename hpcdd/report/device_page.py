"""The page of ``hpcdd bench device``."""

from __future__ import annotations

from pathlib import Path

from ..artifacts import device_file
from ..artifacts.device_file import HEAD
from .page import Section


def section(source: Path) -> Section:
    """Tables alone.

    Args:
        source: folder in which ``bench device`` has left its result.

    Raises:
        UserError: the result can't be read, or is damaged.
    """
    found = device_file.read(source)
    best = max(found.measurements, key=lambda way: way.factor[1])
    return Section(
        f"{found.device}: tests and steps",
        "device.html",
        found.show,
        cards=[
            (f"{found.tests.passed}", f"tests of devices passed, {found.tests.failed} failed"),
            (
                f"{best.factor[1]:.2f} x",
                f"best case over eager fp32: {best.case}, {best.way}, {best.cnns} CNN{'s' * (best.cnns > 1)}",
            ),
        ],
        head=HEAD,
        rows=found.rows(),
        staging=[[f"{size:,}", f"{1e6 * seconds:,.0f}"] for size, seconds in found.staging.items()],
        facts=[
            *([found.tests.reason] if found.tests.reason else []),
            *(f"left out: {line}" for line in found.left_out),
            f"{found.machine.get('processor')}; torch {found.machine['packages'].get('torch')}",
            f"{found.seconds:,.0f} seconds, until {found.time}",
        ],
        output=found.tests.output,
    )

"""The page of ``hpcdd bench device``."""

from __future__ import annotations

from pathlib import Path

from ..artifacts.device_file import HEAD, NAME, DeviceReport
from ..core.files import read_json
from .page import Section


def section(source: Path) -> Section:
    """The section, which has tables and no figures.

    Args:
        source: folder with the result of ``bench device``.

    Raises:
        UserError: the result can't be read, or is damaged.
    """
    device_report = read_json(source / NAME, DeviceReport)
    best = max(device_report.measurements, key=lambda way: way.factor[1])
    return Section(
        f"{device_report.device}: tests and steps",
        "device.html",
        device_report.show,
        cards=[
            (f"{device_report.tests.passed}", f"tests of devices passed, {device_report.tests.failed} failed"),
            (
                f"{best.factor[1]:.2f} x",
                f"best case over eager fp32: {best.case}, {best.way}, {best.cnns} CNN{'s' * (best.cnns > 1)}",
            ),
        ],
        head=HEAD,
        rows=device_report.rows(),
        staging=[[f"{size:,}", f"{1e6 * seconds:,.0f}"] for size, seconds in device_report.staging.items()],
        facts=[
            *([device_report.tests.reason] if device_report.tests.reason else []),
            *(f"left out: {line}" for line in device_report.left_out),
            f"{device_report.machine.get('processor')}; torch {device_report.machine.get('packages', {}).get('torch')}",
            f"{device_report.seconds:,.0f} seconds, until {device_report.time}",
        ],
        output=device_report.tests.output,
    )

"""The page of a device, from results that ``bench device`` did not write as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcdd.artifacts import device_file
from hpcdd.core.errors import UserError
from hpcdd.report.device_page import section

_WAY = {"case": "VGG3", "way": "hpcdd", "cnns": 1, "batch": 8, "seconds": [1, 1, 1], "reference": [2, 2, 2]}


def write(folder: Path, **changed: Any) -> None:
    content = {
        "device": "a GPU",
        "kind": "cuda",
        "machine": {},
        "tests": {"passed": 3},
        "measurements": [{**_WAY, "factor": [2, 2, 2]}],
        "staging": {},
        "left_out": [],
        "seconds": 1,
        "time": "2026-11-30T00:00:00+00:00",
    }
    (folder / device_file.NAME).write_text(json.dumps(content | changed))


def test_facts_about_the_machine_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path)
    page = section(tmp_path)
    assert [value for value, _ in page.context["cards"]] == ["3", "2.00 x"]


def test_a_result_without_measurements_is_refused(tmp_path: Path) -> None:
    write(tmp_path, measurements=[])
    with pytest.raises(UserError, match="device.json is damaged or of another format: measurements: "):
        section(tmp_path)

"""One browser for all pages: to start it takes longer than to look at one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import browser


@pytest.fixture(scope="package")
def opened() -> Iterator[Any]:
    """A Chromium; without one, tests that use it are skipped."""
    with browser.chromium() as started:
        yield started

"""Facts about devices."""

from __future__ import annotations

from hpcdd.core import environment
from hpcdd.core.devices import arithmetic_of


def test_arithmetic_names_processor_instructions_and_threads() -> None:
    arithmetic = arithmetic_of("cpu", 2)
    assert arithmetic.startswith(environment.processor())
    assert arithmetic.endswith("), 2 threads")

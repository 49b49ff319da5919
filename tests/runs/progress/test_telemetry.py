"""When a rank sends its statuses, and in what order root receives them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcdd.mpi.communicator import Comm
from hpcdd.runs.progress.telemetry import Telemetry


def test_many_ranks_send_their_first_status_as_late_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    comm = cast(Comm, SimpleNamespace(size=800, is_root=False, traffic={}))
    telemetry = Telemetry(comm, cast(Any, None), lambda *_, **__: None, interval=0.5)
    now = 1.99
    assert not telemetry.due(), "root receives at most 400 messages per second"
    now = 2.0
    assert telemetry.due()

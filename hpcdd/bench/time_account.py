"""Where a run's time goes: every moment of a rank belongs to one entry of an account."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ..core.names import CountedName
from ..mpi.traffic import Ledger
from ..training.step_timing import EVALUATION, PARTS

CATEGORIES = (*PARTS, EVALUATION, "waiting", "checkpoints", "reading", "records", "bookkeeping")
"""What time is spent on; ``bookkeeping`` is the rest."""
_BY_PHASE: dict[CountedName | Literal[""], str] = {"read": "reading", "examination": "records", "record": "records"}
"""What a phase counts as, but for the steps, evaluations and checkpoints within."""


class AccountEntry(NamedTuple):
    """What a rank is doing.

    Attributes:
        phase: of the run; empty between phases.
        within: the innermost phase inside of that, such as ``checkpoint``; empty outside of any.
        part: of a step, or a batch of an evaluation (:mod:`hpcdd.training.step_timing`); empty outside of both.
        waits: whether it may be waiting for other ranks.
    """

    phase: CountedName | Literal[""] = ""
    within: CountedName | Literal[""] = ""
    part: str = ""
    waits: bool = False

    @property
    def category(self) -> str:
        """One of :data:`CATEGORIES`."""
        if self.waits:
            return "waiting"
        if self.part:
            return self.part
        if EVALUATION in (self.phase, self.within):
            return EVALUATION
        if self.within == "checkpoint":
            return "checkpoints"
        return _BY_PHASE.get(self.phase, "bookkeeping")


class Account(Ledger):
    """A ledger that keeps the time as well; it takes about a microsecond whenever a rank turns to something else.

    Attributes:
        seconds: by entry; they add up to the time since :meth:`begin`.
        ends: by phase when it has ended last, in seconds since :meth:`begin`.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(rank)
        self.seconds: dict[AccountEntry, float] = defaultdict(float)
        self.ends: dict[CountedName, float] = {}
        self._entry = AccountEntry()
        self._begun = self._since = time.perf_counter()

    def begin(self) -> None:
        """The time counts from now on."""
        self.seconds.clear()
        self._begun = self._since = time.perf_counter()

    def end(self) -> float:
        """Seconds since :meth:`begin`, the last of which are in the account now."""
        self._turn(self._entry)
        return self._since - self._begun

    @contextlib.contextmanager
    def phase(self, name: CountedName) -> Iterator[None]:
        """See :meth:`hpcdd.mpi.traffic.Ledger.phase`."""
        before = self._entry
        self._turn(before._replace(within=name) if before.phase else before._replace(phase=name))
        with super().phase(name):
            yield
        self._turn(before)
        if not before.phase:
            self.ends[name] = self._since - self._begun

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """See :meth:`hpcdd.mpi.traffic.Ledger.waiting`."""
        with self._as(self._entry._replace(waits=True)), super().waiting():
            yield

    def part(self, name: str) -> contextlib.AbstractContextManager[None]:
        """For :func:`hpcdd.training.step_timing.marked`."""
        return self._as(self._entry._replace(part=name))

    def by_phase(self) -> dict[str, float]:
        """Seconds of each phase, with all that is within."""
        return self._summed(lambda entry: entry.phase)

    def by_category(self) -> dict[str, float]:
        """Seconds of each of :data:`CATEGORIES`."""
        return dict.fromkeys(CATEGORIES, 0.0) | self._summed(lambda entry: entry.category)

    def steps_by_phase(self) -> dict[str, float]:
        """Seconds of training steps and of evaluations' batches by phase, with the messages that are part of them."""
        return self._summed(lambda entry: entry.phase if entry.part else "")

    def _summed(self, key: Callable[[AccountEntry], str]) -> dict[str, float]:
        totals: dict[str, float] = defaultdict(float)
        for entry, seconds in self.seconds.items():
            if name := key(entry):
                totals[name] += seconds
        return dict(totals)

    @contextlib.contextmanager
    def _as(self, entry: AccountEntry) -> Iterator[None]:
        before = self._entry
        self._turn(entry)
        yield
        self._turn(before)

    def _turn(self, entry: AccountEntry) -> None:
        now = time.perf_counter()
        self.seconds[self._entry] += now - self._since
        self._entry, self._since = entry, now

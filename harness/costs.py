"""Where the wall time of a search goes.

At each moment it goes to one part, the innermost that was entered, so that all parts together are all of it. What is
neither a build, nor a timed run, nor waited for is the harness's, whatever it is good for: also processes that start,
the oracle, and candidates that run while no clock does.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum


class Part(StrEnum):
    """What time is spent on."""

    BUILDS = "builds"  # compiling, or waiting for it; converting a model into another layout
    TIMED = "timed runs"  # champion or candidate on the clock, repetitions that do not count included
    WAITING = "waiting for proposals"  # for a model's answers, or for files in an inbox
    STARTING = "starting processes"  # until a candidate's code is let in, and ending them
    INPUTS = "drawing inputs"  # and handing them over
    RUNNING = "running checks"  # check shapes, the golden record's questions, prompts before a timed decode
    COMPARING = "comparing"  # with the oracle, the champion as a witness, the golden record
    MACHINE = "watching the machine"  # its memory, an empty kernel, its counters after each block
    REST = "proposing and recording"  # all else


NOT_HARNESS = (Part.BUILDS, Part.TIMED, Part.WAITING)


class Meter:
    """Counts the seconds of each part of what one thread does, from now on."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._parts = clock, [Part.REST]
        self._seconds = dict.fromkeys(Part, 0.0)
        self._since = clock()
        self.phases: dict[str, float] = {}

    def seconds(self) -> dict[str, float]:
        """Of each part until now."""
        self._count()
        return {part.value: seconds for part, seconds in self._seconds.items()}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """What `spent_on` says in here, in this thread, is counted here."""
        before = _METER.set(self)
        try:
            yield
        finally:
            _METER.reset(before)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time in here is that of a phase of the search, whatever it is spent on."""
        started = self._clock()
        try:
            yield
        finally:
            self.phases[name] = self._clock() - started

    @contextmanager
    def on(self, part: Part) -> Iterator[None]:
        """The time in here goes to a part, but for what parts in it take."""
        self._count()
        self._parts.append(part)
        try:
            yield
        finally:
            self._count()
            self._parts.pop()

    def timed(self, seconds: float) -> None:
        """So many of the seconds that have just passed were a timed run's."""
        self._count()
        self._seconds[self._parts[-1]] -= seconds
        self._seconds[Part.TIMED] += seconds

    def _count(self) -> None:
        now = self._clock()
        self._seconds[self._parts[-1]] += now - self._since
        self._since = now


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)  # a new thread has none: it spends nobody's time


@contextmanager
def spent_on(part: Part) -> Iterator[None]:
    """The time in here goes to a part of the search that this is in, if it is in any. A decorator, too."""
    meter = _METER.get()
    if meter is None:
        yield
    else:
        with meter.on(part):
            yield


def spent_timed(seconds: float) -> None:
    """So many of the seconds that have just passed were a timed run's."""
    if (meter := _METER.get()) is not None:
        meter.timed(seconds)


@dataclass(frozen=True)
class Costs:
    """Seconds of a search by what they were spent on: `parts` (`Part`), all of them together its wall time, and the
    same time by `phases`: its opening, the search itself, the confirmation. candidates: those judged in it."""

    parts: Mapping[str, float] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    candidates: int = 0

    @property
    def harness(self) -> float:
        """The share that was neither builds, nor timed runs, nor waited for."""
        total = sum(self.parts.values())
        return 1 - sum(self.parts.get(part, 0.0) for part in NOT_HARNESS) / total if total else 0.0

    @property
    def per_hour(self) -> float:
        """Candidates an hour of the search itself, without opening and confirmation."""
        searched = self.phases.get("search", 0.0)
        return 3600 * self.candidates / searched if searched else 0.0

    def lines(self) -> Iterator[str]:
        """For people."""
        share = f"the harness, all but builds, timed runs and waiting: {100 * self.harness:.1f} %"
        yield f"seconds: {_listed(self.parts)}; {share}"
        yield f"seconds: {_listed(self.phases)}; {self.per_hour:.0f} candidates an hour of the search"


def _listed(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items() if spent > 0)

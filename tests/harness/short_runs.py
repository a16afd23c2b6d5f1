"""Measurements of searches that are long enough for a test: they say that a candidate was timed, not how fast it is."""

import dataclasses
from collections.abc import Callable

from baseline.probe import MemoryRead
from harness import aa, confirm, judge
from harness.measure import EnginePlan

PLAN = EnginePlan(blocks=(3, 3), tokens=2, prompt=1, timeout_s=300.0)
MEMORY = MemoryRead(200.0, 2, 1 << 29)  # more than a machine of the tests has: measuring it takes 3 s of each search


def shorten(patch: Callable[[object, str, object], None]) -> None:
    """Makes all engine runs as short as PLAN, and the opening of a search short, with `setattr` or with what puts
    things back after a test. The searches of test_cli.py and test_wheel.py have nothing of this."""
    patch(judge, "EnginePlan", lambda gain, state: dataclasses.replace(PLAN, gain=gain, state=state))
    patch(confirm, "ENGINE", PLAN)
    patch(aa, "DECODE_PLAN", PLAN)
    patch(judge, "memory_read", lambda folder: MEMORY)

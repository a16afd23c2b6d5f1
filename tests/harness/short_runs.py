"""Engine runs of searches that are long enough for a test: they say that a candidate was timed, not how fast it is."""

import dataclasses
from collections.abc import Callable

from harness import confirm, judge
from harness.measure import EnginePlan

PLAN = EnginePlan(blocks=(3, 3), tokens=2, prompt=1, timeout_s=300.0)


def shorten(patch: Callable[[object, str, object], None]) -> None:
    """Makes all engine runs as short as PLAN, with `setattr` or with what puts things back after a test."""
    patch(judge, "EnginePlan", lambda gain, state: dataclasses.replace(PLAN, gain=gain, state=state))
    patch(confirm, "ENGINE", PLAN)

"""A cap on what is spent, calls in flight included."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Exhausted(Exception):
    """The next call could cost more than is left. The message is one line."""


@dataclass
class Hold:
    """Dollars that are set aside for a call; what it then cost is put in their place."""

    usd: float


class Budget:
    """Dollars spent, and held for calls whose cost is not known yet."""

    def __init__(self, max_usd: float | None, spent: float = 0.0) -> None:
        """`max_usd`: the cap, None for none. `spent`: what an earlier part of this search has spent of it."""
        self._max, self.spent = max_usd, spent
        self._held: list[Hold] = []

    def reserve(self, worst: float) -> Hold:
        """Sets the most that a call can cost aside. `Exhausted` when that is more than is left."""
        held = sum(hold.usd for hold in self._held)
        if self._max is not None and self.spent + held + worst > self._max:
            left = self._max - self.spent - held
            raise Exhausted(f"a call may cost ${worst:.2f}, and ${left:.2f} of max_usd={self._max:g} is left")
        hold = Hold(worst)
        self._held.append(hold)
        return hold

    def settle(self, hold: Hold) -> None:
        """What is held becomes spent: the worst case, unless its `usd` was set to what the call cost."""
        self._held = [other for other in self._held if other is not hold]
        self.spent += hold.usd

    @contextmanager
    def hold(self, worst: float) -> Iterator[Hold]:
        """Sets `worst` aside for the time of a call."""
        hold = self.reserve(worst)
        try:
            yield hold
        finally:
            self.settle(hold)

"""A cap on what is spent, calls in flight included."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.propose.claude.call import Call, Journal
from harness.propose.claude.price import Usage


class Exhausted(Exception):
    """The next call could cost more than is left. The message is one line."""


@dataclass(eq=False)
class Hold:
    """What is set aside for a call, the most that it can take; `cost` puts what it took in its place."""

    number: int
    model: str
    usage: Usage
    usd: float
    known: bool = False

    def cost(self, usage: Usage, usd: float) -> None:
        """Says what the call took."""
        self.usage, self.usd, self.known = usage, usd, True

    @property
    def call(self) -> Call:
        """As it is recorded."""
        return Call(self.number, self.model, self.usage, self.usd, self.known)


class Budget:
    """Dollars spent, and held for calls whose cost is not known yet."""

    def __init__(
        self, max_usd: float | None, spent: float = 0.0, calls: int = 0, journal: Journal | None = None
    ) -> None:
        """`max_usd`: the cap, None for none. `spent`, `calls`: of an earlier part of this search. `journal` is told of
        each call before it is made, and when it is known what it took."""
        self._max, self.spent, self._calls, self._journal = max_usd, spent, calls, journal or (lambda call: None)
        self._held: list[Hold] = []

    def reserve(self, model: str, most: Usage, worst: float) -> Hold:
        """Sets the most that a call can cost aside. `Exhausted` when that is more than is left."""
        held = sum(hold.usd for hold in self._held)
        if self._max is not None and self.spent + held + worst > self._max:
            left = self._max - self.spent - held
            raise Exhausted(f"a call may cost ${worst:.2f}, and ${left:.2f} of max_usd={self._max:g} is left")
        self._calls += 1
        hold = Hold(self._calls, model, most, worst)
        self._held.append(hold)
        self._journal(hold.call)
        return hold

    def settle(self, hold: Hold) -> None:
        """What is held becomes spent: what the call took, or the worst case where nobody knows. Once is enough."""
        if hold not in self._held:
            return
        self._held.remove(hold)
        self.spent += hold.usd
        if hold.known:
            self._journal(hold.call)

    @contextmanager
    def hold(self, model: str, most: Usage, worst: float) -> Iterator[Hold]:
        """Sets `worst` aside for the time of a call."""
        hold = self.reserve(model, most, worst)
        try:
            yield hold
        finally:
            self.settle(hold)

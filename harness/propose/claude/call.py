"""One call of a model, as a search's record holds it: what it may cost before it is made, what it took afterwards."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.propose.claude.price import Price, Usage


@dataclass(frozen=True)
class Call:
    """number: of the search, from 1. Until it is answered usage and usd are the most that it can take; usd is nan where
    the model has no price."""

    number: int
    model: str
    usage: Usage
    usd: float
    answered: bool = False

    def priced(self, price: Price) -> float:
        """Dollars: those of its time, or else what it costs at a price that is known by now."""
        if not math.isnan(self.usd):
            return self.usd
        return price.usd(self.usage) if self.answered else price.worst(self.usage.input, self.usage.output)


Journal = Callable[[Call], None]


def spent(calls: Iterable[Call], price: Callable[[str], Price]) -> float:
    """Dollars that calls took, those without an answer the most that they can have cost; nan where one has no price."""
    return math.fsum(call.priced(price(call.model)) for call in calls)

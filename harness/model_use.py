"""What a search took of a language model: for its candidates, and for what came to nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.ledger import Row
from harness.propose.claude.event import Event, Spent


@dataclass(frozen=True)
class ModelUse:
    """Tokens and dollars. input_tokens: those from the cache included. usd: nan where the model has no price. calls: of
    the Messages API, those that brought nothing included; 0 where they are not known."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    calls: int = 0

    def __bool__(self) -> bool:
        """Whether a model was asked."""
        return self != ModelUse()

    @property
    def cached_share(self) -> float | None:
        """What part of the input tokens came from the cache; None where there were none."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else None

    def usd_per_percent(self, speedup: float | None) -> float | None:
        """Dollars for each 1 % of a confirmed speed-up; None where nothing was confirmed, or nothing gained."""
        gain = 100 * ((speedup or 1.0) - 1)
        return self.usd / gain if gain > 0 else None

    def text(self, speedup: float | None) -> str:
        """For people, in one line. `speedup`: the confirmed one, None where there is none."""
        share = "" if self.cached_share is None else f" ({100 * self.cached_share:.0f} % from the cache)"
        calls = f"{self.calls} calls, " if self.calls else ""
        tokens = f"{calls}{self.input_tokens:,} tokens in{share}, {self.output_tokens:,} out"
        if math.isnan(self.usd):
            return f"{tokens}; it has no price"
        each = self.usd_per_percent(speedup)
        return f"{tokens}; ${self.usd:.2f}" + ("" if each is None else f", ${each:.4f} for each confirmed 1 %")


def model_use(rows: Iterable[Row], events: Iterable[Event]) -> ModelUse:
    """The sum over a search's candidates and its events."""
    took = [ModelUse(row.input_tokens, row.cached_tokens, row.output_tokens, row.usd) for row in rows]
    took += [_of_event(event) for event in events]
    return ModelUse(
        sum(use.input_tokens for use in took),
        sum(use.cached_tokens for use in took),
        sum(use.output_tokens for use in took),
        sum(use.usd for use in took),
    )


def _of_event(event: Event) -> ModelUse:
    spent = Spent(event.model, event.usage, event.usd)
    return ModelUse(spent.input, spent.cached, spent.output, spent.usd)

"""What happens beside the candidates: calls that brought none, and what was spent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.propose.claude.price import Usage


class Kind(StrEnum):
    """What was not as it should be. Each is recorded, and none ends a search."""

    STALL = "stall"  # the server was silent for longer than patience_s
    OVERLOAD = "overload"  # rate limits or overload that outlasted patience_s
    ERROR = "error"  # the server refused the call, or failed for longer than patience_s
    CUT = "cut"  # the connection ended in the middle of an answer
    MALFORMED = "malformed"  # an answer that is none, or a tool call that is unsound
    REPEATED = "repeated"  # a proposal of what was tried or refuted
    TRUNCATED = "truncated"  # an answer that max_tokens cut off
    REFUSAL = "refusal"  # the model would not answer
    UNUSED = "unused"  # paid for, and not judged: the search ended, or the champion changed
    BUDGET = "budget"  # max_usd leaves no room for another call


@dataclass(frozen=True)
class Event:
    """Something to record. usage and usd: what is spent on it and on no candidate; usd is the most it may have cost."""

    kind: Kind
    reason: str
    usage: Usage
    usd: float
    model: str


Record = Callable[[Event], None]


class Unanswered(Exception):
    """A call that brought no proposal: its kind, why in one line, and what it may have cost at most. shares: of several
    calls at once, what each model's may have cost."""

    def __init__(self, kind: Kind, reason: str, usd: float = 0.0, shares: Mapping[str, float] | None = None) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason, self.usd, self.shares = kind, reason, usd, shares or {}


@dataclass(frozen=True)
class Spent:
    """What a candidate took: all calls that led to it. usd is nan where the model has no price."""

    model: str
    usage: Usage = field(default_factory=Usage)
    usd: float = 0.0

    @property
    def input(self) -> int:
        """Input tokens, those from the cache included."""
        return self.usage.input + self.usage.cache_write + self.usage.cache_read

    @property
    def cached(self) -> int:
        """Input tokens that came from the cache."""
        return self.usage.cache_read

    @property
    def output(self) -> int:
        """Output tokens, the thinking included."""
        return self.usage.output

    def __bool__(self) -> bool:
        return self.usage != Usage()

    def plus(self, usage: Usage, usd: float) -> "Spent":
        """This and another call's."""
        return Spent(self.model, self.usage + usage, self.usd + usd)

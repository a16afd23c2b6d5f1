"""What calls of a model cost: the price table, conf/prices.yaml."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from baseline.errors import UsageError

MILLION = 1_000_000


@dataclass(frozen=True)
class Usage:
    """Tokens that were paid for. input: those that the cache neither kept nor gave; output includes the thinking."""

    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input + other.input,
            self.cache_write + other.cache_write,
            self.cache_read + other.cache_read,
            self.output + other.output,
        )


@dataclass(frozen=True)
class Price:
    """Dollars a million tokens of each kind of `Usage`; nan where no price is known."""

    input: float
    cache_write: float
    cache_read: float
    output: float

    @property
    def known(self) -> bool:
        """Whether this model has a price."""
        return not math.isnan(self.input)

    def usd(self, usage: Usage) -> float:
        """Dollars that `usage` costs."""
        dollars = (
            self.input * usage.input
            + self.cache_write * usage.cache_write
            + self.cache_read * usage.cache_read
            + self.output * usage.output
        )
        return dollars / MILLION

    def worst(self, tokens: int, max_tokens: int) -> float:
        """The most that a call can cost: all of its input at the dearest rate, and the longest answer."""
        return (max(self.input, self.cache_write) * tokens + self.output * max_tokens) / MILLION


UNKNOWN = Price(math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class _Table:
    date: Any
    batch: float
    models: dict[str, Price]


def load_price(path: Path, model: str, batch: bool) -> Price:
    """The price of a model, in a batch or alone; `UNKNOWN` for one that the table lacks. UsageError for a bad table."""
    try:
        table = pydantic.TypeAdapter(_Table).validate_python(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, pydantic.ValidationError) as error:
        raise UsageError(f"{path}: not a table of prices ({' '.join(str(error).split())})") from None
    price = table.models.get(model, UNKNOWN)
    part = table.batch if batch else 1.0
    return Price(part * price.input, part * price.cache_write, part * price.cache_read, part * price.output)

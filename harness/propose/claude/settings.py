"""What the proposer is asked to do, and what it needs for that."""

import importlib.util
import math
import os
from dataclasses import dataclass
from pathlib import Path

from baseline.errors import UsageError
from harness.paths import data_folder
from harness.propose.claude.price import Price, Usage, load_price

KEY = "ANTHROPIC_API_KEY"
# What a candidate usually takes, an assumption of ours: a call that reads the prompt, one that goes back with an error
# or a question; the stable part of the prompt is in the cache by then.
EACH_S = 60.0  # what a candidate takes with the model's thinking, an assumption too
TYPICAL = Usage(input=1_000, cache_write=10_000, cache_read=45_000, output=14_000)


@dataclass(frozen=True)
class ClaudeSettings:
    """The fields of conf/proposer/claude.yaml, which says what each means. Raises UsageError for one out of range."""

    model: str
    base_url: str | None = None
    paper: Path | None = None
    max_usd: float | None = None
    max_tokens: int = 32_000
    repairs: int = 3
    patience_s: float = 300.0
    batch: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("proposer.model must name a model")
        if self.max_usd is not None and not self.max_usd > 0:
            raise UsageError(f"proposer.max_usd must be more than 0, got {self.max_usd}")
        if self.max_tokens < 1:
            raise UsageError(f"proposer.max_tokens must be 1 or more, got {self.max_tokens}")
        if self.repairs < 0:
            raise UsageError(f"proposer.repairs must be 0 or more, got {self.repairs}")
        if not self.patience_s > 0:
            raise UsageError(f"proposer.patience_s must be more than 0, got {self.patience_s}")
        if self.paper is not None and not self.paper.is_file():
            raise UsageError(f"proposer.paper={self.paper}: there is no such file")


def price_table() -> Path:
    """Where prices are."""
    return data_folder("conf") / "prices.yaml"


def price_of(settings: ClaudeSettings) -> Price:
    """What the model costs. UsageError when it has no price and is to keep to a cap."""
    table = price_table()
    price = load_price(table, settings.model, settings.batch)
    if settings.max_usd is not None and not price.known:
        raise UsageError(f"proposer.max_usd: {settings.model} has no price in {table}; enter one, or set no cap")
    return price


def estimate(settings: ClaudeSettings, candidates: int) -> float:
    """Dollars that so many candidates will likely cost, never more than the cap; nan where the model has no price."""
    likely = candidates * price_of(settings).usd(TYPICAL)
    return likely if settings.max_usd is None else min(likely, settings.max_usd)


def forecast(settings: ClaudeSettings, candidates: int | None, minutes: float) -> str:
    """What a search will likely cost, in one line; `candidates`: None where only the time ends it."""
    many = candidates if candidates is not None else round(60 * minutes / EACH_S)
    usd = estimate(settings, many)
    if math.isnan(usd):
        return f"{settings.model} has no price: what {many} candidates will cost is not known"
    cap = f", and no more than ${settings.max_usd:.2f}" if settings.max_usd is not None else ""
    return f"{settings.model}: about ${usd:.2f} for some {many} candidates{cap}"


def api_key() -> str:
    """The key, from the environment alone. UsageError, in one line, when the SDK or the key is missing."""
    if importlib.util.find_spec("anthropic") is None:
        raise UsageError("proposer=claude needs the anthropic SDK: pip install 'nightforge[claude]'")
    key = os.environ.get(KEY, "")
    if not key:
        raise UsageError(f"proposer=claude takes its key from {KEY} in the environment, which is empty")
    return key

"""What the proposer is asked to do, and what it needs for that."""

import importlib.util
import math
import os
from collections.abc import Sequence
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

    model: str | Sequence[str]
    base_url: str | None = None
    paper: Path | None = None
    max_usd: float | None = None
    max_tokens: int = 32_000
    repairs: int = 3
    patience_s: float = 300.0
    batch: bool = False

    def __post_init__(self) -> None:
        if not all(self.models) or not self.models:
            raise UsageError("proposer.model must name a model, or several as [a,b]")
        if len({*self.models}) < len(self.models):
            raise UsageError(f"proposer.model names one twice: {', '.join(self.models)}")
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

    @property
    def models(self) -> tuple[str, ...]:
        """All that may be asked."""
        return (self.model,) if isinstance(self.model, str) else tuple(self.model)


def price_table() -> Path:
    """Where prices are."""
    return data_folder("conf") / "prices.yaml"


def prices_of(settings: ClaudeSettings) -> dict[str, Price]:
    """What each model costs. UsageError when one has no price and they are to keep to a cap."""
    table = price_table()
    prices = {model: load_price(table, model, settings.batch) for model in settings.models}
    without = [model for model, price in prices.items() if not price.known]
    if settings.max_usd is not None and without:
        raise UsageError(f"proposer.max_usd: {', '.join(without)} has no price in {table}; enter one, or set no cap")
    return prices


def estimate(settings: ClaudeSettings, candidates: int) -> float:
    """Dollars that so many candidates of the dearest model will likely cost, never more than the cap; nan where a model
    has no price."""
    each = [price.usd(TYPICAL) for price in prices_of(settings).values()]
    likely = math.nan if any(map(math.isnan, each)) else candidates * max(each)
    return likely if settings.max_usd is None else min(likely, settings.max_usd)


def forecast(settings: ClaudeSettings, candidates: int | None, minutes: float) -> str:
    """What a search will likely cost, in one line; `candidates`: None where only the time ends it."""
    many = candidates if candidates is not None else round(60 * minutes / EACH_S)
    usd, names = estimate(settings, many), ", ".join(settings.models)
    if math.isnan(usd):
        return f"{names} has no price: what {many} candidates will cost is not known"
    cap = f", and no more than ${settings.max_usd:.2f}" if settings.max_usd is not None else ""
    dearest = " of the dearest" if len(settings.models) > 1 else ""
    return f"{names}: about ${usd:.2f} for some {many} candidates{dearest}{cap}"


def api_key() -> str:
    """The key, from the environment alone. UsageError, in one line, when the SDK or the key is missing."""
    if importlib.util.find_spec("anthropic") is None:
        raise UsageError("proposer=claude needs the anthropic SDK: pip install 'nightforge[claude]'")
    key = os.environ.get(KEY, "")
    if not key:
        raise UsageError(f"proposer=claude takes its key from {KEY} in the environment, which is empty")
    return key

"""Puts the proposer together. The SDK is imported here, once it is known to be there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baseline.errors import UsageError
from harness.propose.base import Proposer
from harness.propose.claude.budget import Budget
from harness.propose.claude.call import Call, Journal, spent
from harness.propose.claude.event import Record
from harness.propose.claude.maker import Maker
from harness.propose.claude.price import load_price
from harness.propose.claude.prompt import Knowledge, Refuted
from harness.propose.claude.reading import Reading
from harness.propose.claude.settings import ClaudeSettings, api_key, price_table, prices_of
from harness.shelf import Shelf

if TYPE_CHECKING:
    from harness.propose.claude.proposer import Claude


@dataclass(frozen=True)
class Search:
    """The search that candidates are proposed to.

    run: its folder. parts: the ops that may be changed, "io" and "layout". limits: what this machine was measured to
    do, a line each. refuted: gives the ideas that are known not to work, a line each. calls: those that an earlier part
    of this search made; journal is told of each that is to be made, and when it is known what it took.
    """

    run: Path
    shelf: Shelf
    parts: tuple[str, ...]
    limits: tuple[str, ...] = ()
    refuted: Refuted = tuple
    calls: Sequence[Call] = ()
    journal: Journal | None = None


def make_claude(settings: ClaudeSettings, search: Search, instead: Proposer, record: Record) -> "Claude":
    """The proposer. UsageError, in one line, when the SDK, the key or the price of a capped model is missing."""
    key, prices = api_key(), prices_of(settings)
    from harness.propose.claude.batched import BatchedClaude
    from harness.propose.claude.client import Client
    from harness.propose.claude.proposer import Claude

    kind, shelf = BatchedClaude if settings.batch else Claude, search.shelf
    return kind(
        client=Client(settings, key, prices, _budget(settings, search)),
        known=Knowledge(shelf.kernels, shelf.target, search.parts, search.limits, search.refuted, settings.paper),
        shelf=shelf,
        maker=Maker(shelf, search.parts),
        reading=Reading(search.run, shelf),
        instead=instead,
        record=record,
    )


def _budget(settings: ClaudeSettings, search: Search) -> Budget:
    """What is left of the cap. UsageError when an earlier part of the search has spent what nobody can count."""
    table = price_table()
    total = spent(search.calls, lambda model: load_price(table, model, settings.batch))
    if settings.max_usd is not None and math.isnan(total):
        asked = ", ".join(dict.fromkeys(call.model for call in search.calls))
        unknown = f"what this search has spent on {asked} is not known"
        raise UsageError(f"proposer.max_usd: {unknown}; enter a price in {table}, or set no cap")
    return Budget(settings.max_usd, total, len(search.calls), search.journal)

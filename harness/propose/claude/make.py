"""Puts the proposer together. The SDK is imported here, once it is known to be there."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.propose.base import Proposer
from harness.propose.claude.budget import Budget
from harness.propose.claude.event import Record
from harness.propose.claude.maker import Maker
from harness.propose.claude.prompt import Knowledge, Refuted
from harness.propose.claude.reading import Reading
from harness.propose.claude.settings import ClaudeSettings, api_key, price_of
from harness.shelf import Shelf

if TYPE_CHECKING:
    from harness.propose.claude.proposer import Claude


@dataclass(frozen=True)
class Search:
    """The search that candidates are proposed to.

    run: its folder. parts: the ops that may be changed, "io" and "layout". limits: what this machine was measured to
    do, a line each. refuted: gives the ideas that are known not to work, a line each. spent_usd: by an earlier part of
    this search.
    """

    run: Path
    shelf: Shelf
    parts: tuple[str, ...]
    limits: tuple[str, ...] = ()
    refuted: Refuted = tuple
    spent_usd: float = 0.0


def make_claude(settings: ClaudeSettings, search: Search, instead: Proposer, record: Record) -> "Claude":
    """The proposer. UsageError, in one line, when the SDK, the key or the price of a capped model is missing."""
    key, price = api_key(), price_of(settings)
    from harness.propose.claude.batched import BatchedClaude
    from harness.propose.claude.client import Client
    from harness.propose.claude.proposer import Claude

    kind, shelf = BatchedClaude if settings.batch else Claude, search.shelf
    return kind(
        client=Client(settings, key, price, Budget(settings.max_usd, search.spent_usd)),
        known=Knowledge(shelf.kernels, shelf.target, search.parts, search.limits, search.refuted, settings.paper),
        shelf=shelf,
        maker=Maker(shelf, search.parts),
        reading=Reading(search.run, shelf),
        instead=instead,
        record=record,
    )

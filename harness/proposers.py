"""Which proposer a search has, and how it is put together."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from baseline.probe import cores, memory_read
from baseline.targets import cpu
from harness.doctor import VECTORS
from harness.ledger import Ledger
from harness.propose.base import Proposer
from harness.propose.claude.make import Search, make_claude
from harness.propose.inbox import Inbox
from harness.propose.mutate import Mutate
from harness.propose.random import Random
from harness.propose.replay import Replay
from harness.propose.settings import ProposerSettings
from harness.propose.writer import Writer
from harness.refutations import matching
from harness.run_folder import RunFolder
from harness.settings import SearchSettings
from harness.shelf import Shelf
from harness.study import Study


@dataclass(frozen=True)
class Workshop:
    """What the proposers of a search work with. parts: the ops, and 'io', that may be changed."""

    run: RunFolder
    ledger: Ledger
    shelf: Shelf
    study: Study
    parts: Sequence[str]
    search: SearchSettings


def make(settings: ProposerSettings, shop: Workshop) -> Proposer:
    """The proposer that a search asked for. UsageError for what it cannot work with."""
    makers: dict[str, Callable[[], Proposer]] = {
        "mutate": lambda: _mutate(shop),
        "claude": lambda: _claude(settings, shop),
        "inbox": lambda: Inbox(_given(settings.folder), shop.shelf, shop.parts, settings.patience_s),
        "replay": lambda: Replay(_given(settings.record), shop.shelf, shop.parts),
        "random": lambda: Random(shop.search.seed, shop.shelf, shop.parts, Writer(shop.shelf, shop.parts)),
    }
    return makers[settings.name]()


def limits(cache: Path) -> tuple[str, ...]:
    """What a kernel can reach on this machine, a line each. `cache`: of compiled libraries."""
    memory = memory_read(cache)
    known = [] if memory.gbps is None else [f"memory read: {memory.gbps:.0f} GB/s on {memory.threads} threads"]
    vectors = ", ".join(macro for macro in VECTORS if f"#define {macro} " in cpu.toolchain().macros)
    return (f"{cores()} cores of {platform.processor() or platform.machine()}; the compiler defines {vectors}", *known)


def _given(path: Path | None) -> Path:
    assert path is not None  # `ProposerSettings` has seen to that
    return path


def _mutate(shop: Workshop) -> Mutate:
    return Mutate(shop.study, shop.shelf, shop.parts, Writer(shop.shelf, shop.parts))


def _claude(settings: ProposerSettings, shop: Workshop) -> Proposer:
    assert settings.claude is not None
    shelf, rows = shop.shelf, shop.ledger.rows
    shop.run.account(rows)  # a search that was killed did not come to it

    def refuted() -> list[str]:
        return [found.line() for part in shop.parts for found in matching(part, shelf.target, rows)]

    search = Search(
        run=shop.run.path,
        shelf=shelf,
        parts=tuple(shop.parts),
        limits=limits(shop.search.cache),
        refuted=refuted,
        calls=shop.run.calls.read(),
        journal=shop.run.calls.record,
    )
    return make_claude(settings.claude, search, instead=_mutate(shop), record=shop.run.events.record)

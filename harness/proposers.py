"""Which proposer a search has, and how it is put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from baseline.errors import UsageError
from harness.events import Events
from harness.ledger import Ledger
from harness.propose.admission import refusal
from harness.propose.base import Proposer
from harness.propose.claude.make import Search, make_claude
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.inbox import Inbox
from harness.propose.mutate import Mutate
from harness.propose.random import Random
from harness.propose.replay import Replay
from harness.propose.writer import Writer
from harness.refutations import matching
from harness.run_folder import RunFolder
from harness.shelf import Shelf
from harness.study import Study

NAMES = ("mutate", "claude", "inbox", "replay", "random")


@dataclass(frozen=True)
class ProposerSettings:
    """The chosen file of conf/proposer. Raises UsageError for a name that is none, or for what that one lacks.

    claude: its settings. folder: the inbox; patience_s: how long an empty one is watched. record: the run that is
    replayed.
    """

    name: str = NAMES[0]
    claude: ClaudeSettings | None = None
    folder: Path | None = None
    patience_s: float = 0.0
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UsageError(f"proposer must be {', '.join(NAMES)}, got {self.name!r}")
        needs = {"claude": self.claude, "inbox": self.folder, "replay": self.record}
        if self.name in needs and needs[self.name] is None:
            what = {"claude": "settings", "inbox": "a folder: proposer.folder=", "replay": "a run: proposer.record="}
            raise UsageError(f"proposer={self.name} needs {what[self.name]}")


@dataclass(frozen=True)
class Workshop:
    """What the proposers of a search work with. parts: the ops, and 'io', that may be changed. limits: what this machine
    was measured to do, a line each."""

    run: RunFolder
    ledger: Ledger
    events: Events
    shelf: Shelf
    study: Study
    parts: Sequence[str]
    seed: int
    limits: tuple[str, ...] = ()

    def spent_usd(self) -> float:
        """By what this search did before it was resumed."""
        return sum(row.usd for row in self.ledger.rows) + sum(event.usd for event in self.events.read())


def make(settings: ProposerSettings, shop: Workshop) -> Proposer:
    """The proposer that a search asked for. UsageError for what it cannot work with."""
    makers: dict[str, Callable[[], Proposer]] = {
        "mutate": lambda: _mutate(shop),
        "claude": lambda: _claude(settings, shop),
        "inbox": lambda: Inbox(_given(settings.folder), shop.shelf, shop.parts, settings.patience_s),
        "replay": lambda: Replay(_given(settings.record), shop.shelf, shop.parts),
        "random": lambda: Random(shop.seed, shop.shelf, shop.parts),
    }
    return makers[settings.name]()


def _given(path: Path | None) -> Path:
    assert path is not None  # `ProposerSettings` has seen to that
    return path


def _mutate(shop: Workshop) -> Mutate:
    return Mutate(shop.study, shop.shelf, shop.parts, Writer(shop.shelf, shop.parts))


def _claude(settings: ProposerSettings, shop: Workshop) -> Proposer:
    assert settings.claude is not None
    shelf, rows = shop.shelf, shop.ledger.rows

    def refuted() -> list[str]:
        return [found.line() for part in shop.parts for found in matching(part, shelf.target, rows)]

    search = Search(
        run=shop.run.path,
        kernels=shelf.kernels,
        shelf=shelf,
        add=shelf.add,
        target=shelf.target,
        parts=tuple(shop.parts),
        limits=shop.limits,
        refuted=refuted,
        objection=lambda op, text: refusal(op, text, shelf, rows),
        spent_usd=shop.spent_usd(),
    )
    return make_claude(settings.claude, search, instead=_mutate(shop), record=shop.events.record)

"""New variants by rewriting what is there: one rewrite more, one less, or the traits of two variants together; and new
layouts, one trait of the champion's changed."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from baseline.layout import Layout
from baseline.variant import METAL
from harness.candidate import ENGINE_PARTS, LAYOUT, Candidate, Status
from harness.ledger import Row
from harness.propose import rewrites
from harness.propose.bandit import FAILED, Bandit
from harness.propose.base import History
from harness.propose.layouts import TRAITS, new_layouts
from harness.propose.moves import VARIANT, Move
from harness.shelf import Shelf
from harness.study import objective

TUNING = "tuning"  # what is done in place of a rewrite: another value of a tunable
WHOLE, RECOMBINED, UNDONE = "whole", "recombined", "without "
_NUMBER = re.compile(r"_\d+\Z")


@dataclass(frozen=True)
class Draft:
    """What was not written yet, the text of a variant or a layout, and the kind of change that makes it: its name."""

    kind: str
    op: str  # or 'layout'
    content: str | Layout


class Writer:
    """Puts rewritten variants of the ops that are searched on the shelf, and changed layouts, one at a time."""

    def __init__(self, shelf: Shelf, parts: Sequence[str]) -> None:
        """`parts`: the ops, 'io' and 'layout', that may be changed."""
        self._shelf = shelf
        self._ops = [part for part in parts if part not in ENGINE_PARTS]

    def write(self, parent: Candidate, parts: Sequence[str], history: History, tuning: bool = True) -> bool:
        """Writes what promises most, for an op among `parts` or their layout, unless tuning, where any is left to do,
        promises more. With all that applies each op begins: it goes farthest, and what it would be better without shows
        later.

        Whether anything was written. It is the shelf's then, and is proposed as all that is there.
        """
        bandit = self.bandit(history.rows)

        def promise(draft: Draft) -> float:
            return math.inf if draft.kind == WHOLE else bandit.score(self._arm(draft.op, draft.kind))

        best = max(self.drafts(parent, parts, history), key=promise, default=None)
        if best is None or (tuning and promise(best) < bandit.score(TUNING)):
            return False
        self.put(best)
        return True

    def drafts(self, parent: Candidate, parts: Sequence[str], history: History) -> list[Draft]:
        """All variants of the ops among `parts`, and all layouts, that one step from `parent` leads to."""
        drafts = [draft for op in self._ops if op in parts for draft in self._drafts(op, parent, history)]
        new = new_layouts(self._shelf, parent, history) if LAYOUT in parts else []
        return drafts + [Draft(layout.name, LAYOUT, layout) for layout in new]

    def put(self, draft: Draft) -> Move:
        """Puts a draft on the shelf. Returns the move to it."""
        if isinstance(draft.content, Layout):
            return Move(LAYOUT, LAYOUT, self._shelf.layouts.add(draft.content).name)
        return Move(draft.op, VARIANT, self._shelf.add(draft.op, draft.kind, draft.content).name)

    def bandit(self, rows: Sequence[Row]) -> Bandit:
        """What each kind of change has brought to each op in a search, and tuning to all of them."""
        bandit = Bandit()
        for row in rows:
            if row.op not in (*self._ops, LAYOUT) or row.status is Status.UNMEASURED:
                continue
            gain = objective(row)
            bandit.observe(self._arm(row.op, self._kind(row)), FAILED if gain is None else gain)
        return bandit

    def _kind(self, row: Row) -> str:
        """How a row's kernel came about: a variant that was written here has the name of its kind, and a number. To
        choose a layout that was there is tuning."""
        kind = _NUMBER.sub("", row.variant.removeprefix(METAL))
        if row.op == LAYOUT:
            return kind if kind in TRAITS else TUNING
        return kind if json.loads(row.tunables) == self._defaults(row) else TUNING

    def _defaults(self, row: Row) -> Mapping[str, int]:
        variant = self._shelf[row.op].get(row.variant)
        return {name: values[0] for name, values in variant.tunables.items()} if variant else {}

    def _arm(self, op: str, kind: str) -> str:
        return kind if kind == TUNING else f"{op}: {kind}"

    def _drafts(self, op: str, parent: Candidate, history: History) -> Iterator[Draft]:
        """All variants that one step leads to, those on the shelf left out."""
        texts = {variant.path.read_text() for variant in self._shelf[op].values()}
        seed = self._text(op, history.seed)
        for kind, text in self._steps(op, seed, self._text(op, parent), history):
            if text not in texts:
                yield Draft(_identifier(kind), op, text)
                texts.add(text)

    def _steps(self, op: str, seed: str, text: str, history: History) -> Iterator[tuple[str, str]]:
        yield WHOLE, rewrites.settled(seed, (rewrite.name for rewrite in rewrites.ALL))
        for rewrite in rewrites.applicable(text):
            yield rewrite.name, rewrite.apply(text)
        own = rewrites.traits(text)
        for trait in own:
            yield UNDONE + trait, rewrites.undo(seed, text, trait)
        for other in self._kept(op, history):
            yield RECOMBINED, rewrites.settled(seed, {*own, *rewrites.traits(other)})

    def _kept(self, op: str, history: History) -> Iterator[str]:
        """The texts of the kernels of an op that were champions once."""
        for row in history.rows:
            if row.op == op and row.status is Status.KEPT and row.variant in self._shelf[op]:
                yield self._shelf[op][row.variant].path.read_text()

    def _text(self, op: str, candidate: Candidate) -> str:
        return self._shelf[op][candidate.configuration.kernels[op].variant].path.read_text()


def _identifier(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in kind.lower())

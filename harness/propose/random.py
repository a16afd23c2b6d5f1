"""The control: an untried move, drawn uniformly. What a proposer is worth is what it finds beyond this one."""

import random
from collections.abc import Mapping, Sequence

from baseline.variant import Variant
from harness.candidate import Candidate
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.propose.moves import Move, Moves
from harness.propose.writer import WHOLE, Draft, Writer


class Random(Proposer):
    """Draws among the moves of `mutate`, one rewrite of a kernel or one change of a value, and learns nothing. The same
    seed and history give the same proposal, before and after a kill."""

    def __init__(
        self,
        seed: int,
        variants: Mapping[str, Mapping[str, Variant]],
        parts: Sequence[str],
        writer: Writer | None = None,
    ) -> None:
        """`variants`: by op and name; `writer` adds to them. `parts`: ops, 'io' and 'layout', that may be changed."""
        self._seed, self._writer = seed, writer
        self._moves = Moves(variants, parts)

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        for parent, parts in self._moves.parents(history):
            new: list[Move] = self._moves.new(parent, parts, history)
            moves: list[Move | Draft] = [*new, *self._drafts(parent, parts, history)]
            if moves:
                draw = random.Random(f"{self._seed} {len(history.rows)} {len(history.pending)}")
                return self._moves.child(parent, self._written(draw.choice(moves)), "random")
        return None

    def _drafts(self, parent: Candidate, parts: Sequence[str], history: History) -> list[Draft]:
        """All rewrites at once are no draw, but a policy."""
        drafts = self._writer.drafts(parent, parts, history) if self._writer is not None else []
        return [draft for draft in drafts if draft.kind != WHOLE]

    def _written(self, drawn: Move | Draft) -> Move:
        if isinstance(drawn, Move):
            return drawn
        assert self._writer is not None  # who else would have drafted it
        return self._writer.put(drawn)

    def observe(self, candidate: Candidate, row: Row) -> None:
        """Learns nothing."""

    def withdraw(self, candidate: Candidate) -> None:
        """Learns nothing: what was not judged is still untried."""

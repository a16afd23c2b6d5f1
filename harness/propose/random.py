"""The control: an untried move, drawn uniformly. What a proposer is worth is what it finds beyond this one."""

import random
from collections.abc import Mapping, Sequence

from baseline.variant import Variant
from harness.candidate import Candidate
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.propose.moves import Moves


class Random(Proposer):
    """Draws among the moves of `mutate`. The same seed and history give the same proposal, before and after a kill."""

    def __init__(self, seed: int, variants: Mapping[str, Mapping[str, Variant]], parts: Sequence[str]) -> None:
        """`variants`: by op and name. `parts`: the ops, 'io' and 'layout', that may be changed."""
        self._seed = seed
        self._moves = Moves(variants, parts)

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        for parent, parts in self._moves.parents(history):
            if moves := self._moves.new(parent, parts, history):
                draw = random.Random(f"{self._seed} {len(history.rows)} {len(history.pending)}")
                return self._moves.child(parent, draw.choice(moves), "random")
        return None

    def observe(self, candidate: Candidate, row: Row) -> None:
        """Learns nothing."""

    def withdraw(self, candidate: Candidate) -> None:
        """Learns nothing: what was not judged is still untried."""

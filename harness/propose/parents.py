"""Whose child is proposed next: the tree that parent ids make of a ledger, and a bandit over its branches.

A search that only ever changes its champion follows the first lucky branch, and ends where none of its neighbours is
better. So a kernel that was right and nearly as fast has children too: fewer, the slower it was.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.candidate import Candidate, KernelSpec, Status
from harness.ledger import Row
from harness.propose.base import History
from harness.study import objective

WIDTH = 0.1  # log speed-ups: how much a parent without children may still be worth beyond what it was measured at
SLOWEST = math.log(0.7)  # of the champion's speed: who is slower has no children
KEPT_ALIVE = 8  # parents of an op beside the champion's kernel, the fastest of them


@dataclass(frozen=True)
class Branch:
    """A kernel that was measured: its log speed-up over the champion's of today, and how many children it has had."""

    row: Row
    value: float
    children: int

    def promise(self, seen: int) -> float:
        """What a child of it may be worth, when so many candidates were seen: UCB1 (Auer et al. 2002)."""
        return self.value + WIDTH * math.sqrt(math.log(1 + seen) / (1 + self.children))


def parents(history: History, parts: Sequence[str]) -> Iterator[tuple[Candidate, list[str]]]:
    """Who may have a child, who promises most first, and which parts it may change: the champion all of `parts`, any
    other the one in which it differs, beside the champion's kernels of the other ops."""
    born = [*(row.parent for row in history.rows), *(candidate.parent for candidate in history.pending)]
    children = Counter(filter(None, born))
    seen, own = sum(children.values()), children[history.champion.id]
    champion = WIDTH * math.sqrt(math.log(1 + seen) / (1 + own))
    others = [branch for op in parts for branch in branches(op, history, children)]
    others.sort(key=lambda branch: -branch.promise(seen))
    yield from (beside(branch.row, history) for branch in others if branch.promise(seen) > champion)
    yield history.champion, list(parts)
    yield from (beside(branch.row, history) for branch in others if branch.promise(seen) <= champion)


def branches(op: str, history: History, children: Counter[str]) -> list[Branch]:
    """The kernels of an op that may have children, the champion's left out; the fastest first."""
    rows = [row for row in history.rows if row.op == op]
    gained = math.fsum(objective(row) or 0.0 for row in rows if row.status is Status.KEPT)
    found, so_far = dict[tuple[str, str, str], Branch](), 0.0
    for row in rows:
        if (gain := objective(row)) is not None:
            found[row.kernel] = Branch(row, so_far + gain - gained, children[row.id])
        so_far += gain if gain is not None and row.status is Status.KEPT else 0.0
    standing = history.champion.configuration.kernels.get(op)
    alive = (b for k, b in found.items() if standing and k[1:] != standing.written() and b.value > SLOWEST)
    return sorted(alive, key=lambda branch: -branch.value)[:KEPT_ALIVE]


def beside(row: Row, history: History) -> tuple[Candidate, list[str]]:
    """A row's kernel beside the champion's of the other ops, and the part in which they differ."""
    spec = KernelSpec(row.variant, json.loads(row.tunables))
    configuration = history.champion.configuration.with_kernel(row.op, spec)
    return Candidate(row.id, row.parent, row.proposer, row.hypothesis, configuration, row.op), [row.op]

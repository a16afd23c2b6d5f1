"""The candidates of a ledger as points of a curve: each op's speed-up over the plain kernel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.candidate import MEASURED, Status
from harness.ledger import Row, latest


@dataclass(frozen=True)
class Point:
    """A candidate on the chart: `speedup` is that of its op over the seed's, nan when it was not measured."""

    number: int
    row: Row
    speedup: float
    best: float  # of this op, after this candidate


def points(rows: Sequence[Row]) -> list[Point]:
    """The candidates of a ledger without the seed, numbered by their rows; one that was measured later comes once.

    A row's speed-up is over the champion of its time, so an op's over the seed is the product of those kept
    before it with its own.
    """
    best: dict[str, float] = {}
    made = []
    kept = latest(rows)
    for number, row in enumerate(rows[1:], start=1):
        if row not in kept:
            continue
        before = best.get(row.op, 1.0)
        speedup = before * row.speedup if row.status in MEASURED else np.nan
        best[row.op] = speedup if row.status is Status.KEPT else before
        made.append(Point(number, row, float(speedup), best[row.op]))
    return made

"""The control of a search: what the best of as many proposals would have come to of which none is built upon another.

Nobody measures it: it is drawn from what the search has measured. Each candidate stands for a proposal made from the
plain kernel. It gains what it gained over what it was made from; over the plain kernel itself where it owes nothing to
the search: a variant that was there before, as it was. Of n draws with replacement the best counts, and a draw that
failed, lost, or gained nothing that could be shown leaves the plain kernel.

What this cannot know: whether a late step would have gained more from the plain kernel than it did from a champion, and
any idea that the search did not have. So the largest step stands beside it: the best of ever so many.
"""

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.candidate import LAYOUT, MEASURED, Status
from harness.points import Point
from harness.run_folder import KERNELS

HEADLINE = (
    "Beside the best of as many proposals of which none is built upon another, drawn from the steps of this search"
)


@dataclass(frozen=True)
class Control:
    """Of an op: what the search came to after each of its candidates, what the best of as many draws is expected to
    gain (`curve`, a geometric mean), and the most that one can. Speed-ups over the plain kernel."""

    op: str
    search: tuple[float, ...]
    curve: tuple[float, ...]
    largest: float

    def line(self) -> str:
        """For people."""
        best = f"best of {len(self.curve)} {self.curve[-1]:.2f}x, of ever so many {self.largest:.2f}x"
        return f"{self.op}: the search {self.search[-1]:.2f}x, {best}"

    def to_json(self) -> dict[str, Any]:
        """As JSON types: the last of both curves, then the curves."""
        last = {"search": self.search[-1], "best_of_n": self.curve[-1], "largest": self.largest}
        return {"op": self.op, "n": len(self.curve), **last, "search_curve": self.search, "best_of_n_curve": self.curve}


def controls(made: Sequence[Point], written: AbstractSet[tuple[str, str]]) -> list[Control]:
    """Of each part of which candidates were judged. `written`: op and name of the variants and layouts that the search
    wrote itself."""
    found = []
    for op in dict.fromkeys(point.row.op for point in made if counts(point)):
        own = [point for point in made if point.row.op == op and counts(point)]
        steps = sorted(_steps(own, made, written))
        curve = tuple(math.exp(_best_of(n, steps)) for n in range(1, len(own) + 1))
        found.append(Control(op, tuple(point.best for point in own), curve, math.exp(steps[-1])))
    return found


def counts(point: Point) -> bool:
    """Whether it is known what became of a candidate."""
    return point.row.status is not Status.UNMEASURED


def written(run: Path) -> set[tuple[str, str]]:
    """Op and name of all that a search wrote into its folder."""
    files = [path for path in (run / KERNELS).glob("*/*/*") if path.is_file()]
    layouts = (run / KERNELS / "layouts").glob("*.yaml")
    return {(path.parent.parent.name, path.stem) for path in files} | {(LAYOUT, path.stem) for path in layouts}


def _steps(own: Sequence[Point], made: Sequence[Point], written: AbstractSet[tuple[str, str]]) -> Iterator[float]:
    """The log speed-up that each candidate of an op stands for, at least 0."""
    by_id = {point.row.id: point for point in made if point.row.op == own[0].row.op}
    seen: set[str] = set()
    for point in own:
        row = point.row
        as_it_was = bool(row.variant) and row.variant not in seen and (row.op, row.variant) not in written
        seen.add(row.variant)
        if row.status not in MEASURED:
            yield 0.0
            continue
        champion, parent = point.speedup / row.speedup, by_id.get(row.parent)
        made_from = parent.speedup if parent and parent.row.status in MEASURED else champion
        base = 1.0 if as_it_was else made_from
        shown = row.status is Status.KEPT or not math.isclose(base, champion)
        yield max(math.log(point.speedup / base), 0.0) if shown else 0.0


def _best_of(n: int, steps: Sequence[float]) -> float:
    """The expected largest of n draws, with replacement, from these values in order."""
    many = len(steps)
    return math.fsum(value * ((i / many) ** n - ((i - 1) / many) ** n) for i, value in enumerate(steps, start=1))

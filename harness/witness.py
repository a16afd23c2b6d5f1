"""The champion as a witness: in a process of its own it makes again what a candidate made while it was timed.

The oracle is too slow for more than a few launches, and seldom sees who leaves out one in a hundred. The champion is
quick enough for all of them. In one process with the candidate, which may have changed its code, it is no witness.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from baseline.contract import Contract
from baseline.elements import Array, widen
from harness.candidate import Failure
from harness.draws import Draw
from harness.timed_check import wrong

SAMPLED = 64  # elements of an output, the same of all launches of a repetition
BOTH = 2  # each of the two may be as far from the truth as the tolerance allows


@dataclass(frozen=True)
class Made:
    """What a repetition was given and, by output, elements of what it made: where they lie in a launch's output, and
    their values, [launches, SAMPLED]."""

    draw: Draw
    places: Mapping[str, tuple[Any, ...]]
    values: Mapping[str, Array]


@dataclass(frozen=True)
class Difference:
    """How far an element is from the champion's, and in words."""

    size: float
    problem: str


class Witness:
    """Remembers what the candidate made, some elements of each launch, until the champion has made it too."""

    def __init__(self, contract: Contract) -> None:
        self._types = {t.name: contract.element_type(t, contract.bench[0].constants) for t in contract.outputs}
        self._made: deque[Made] = deque()
        self._largest: dict[str, Difference] = {}
        self._random = np.random.default_rng()

    @property
    def waits(self) -> bool:
        """Whether there is anything that the champion has not made yet."""
        return bool(self._made)

    def see(self, draw: Draw, outputs: Mapping[str, Array]) -> None:
        """Remembers what the candidate made of a draw: [launches, ...] by name. Nobody knew which elements it would
        be when it ran."""
        places = {name: self._places(made.shape[1:]) for name, made in outputs.items()}
        values = {name: made[:, *places[name]] for name, made in outputs.items()}
        if values:
            self._made.append(Made(draw, places, values))

    def draw(self) -> Draw:
        """What the champion is to be given: what the candidate was, of all that waits the first."""
        return self._made[0].draw

    def compare(self, outputs: Mapping[str, Array]) -> None:
        """Compares what the champion has made of `draw`, which then waits no longer."""
        made = self._made.popleft()
        for name, at in made.places.items():
            got, wanted = (widen(a, self._types[name]) for a in (made.values[name], outputs[name][:, *at]))
            found = _largest(name, at, got, wanted)
            self._largest[name] = max(found, self._largest.get(name, found), key=lambda difference: difference.size)

    def failure(self, limits: Mapping[str, float]) -> Failure | None:
        """What is wrong with what the candidate made. limits: how far from the truth an output may be, by name."""
        for name, found in self._largest.items():
            limit = BOTH * limits[name]
            if found.size > limit:
                return wrong(f"{found.problem}, tolerance {limit:.2e}")
        return None

    def _places(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        return np.unravel_index(self._random.integers(np.prod(shape), size=SAMPLED), shape)


def _largest(name: str, places: tuple[Any, ...], got: Array, wanted: Array) -> Difference:
    off = np.nan_to_num(np.abs(got - wanted), nan=np.inf, posinf=np.inf)
    launch, number = np.unravel_index(off.argmax(), off.shape)
    place = ", ".join(str(axis[number]) for axis in places)
    size, one, other = (float(values[launch, number]) for values in (off, got, wanted))
    return Difference(size, f"{name}[{place}] is {one:.7g}, the champion's {other:.7g}: off by {size:.2e}")

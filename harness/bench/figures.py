"""Figures of interleaved samples, their ratios, what they should reach, and the rows that hold them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

Arm = Callable[[], float]
"""Measures once: a rate or a time, in the unit of its row."""

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """The median of samples and their quartiles."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Figure":
        """ValueError when there are none."""
        if not len(samples):
            raise ValueError("a figure needs at least one sample")
        low, median, high = np.quantile(np.asarray(samples, float), (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high), len(samples))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """The figure of ours / theirs, round by round: what disturbs a whole round disturbs both.

    ValueError when the two have different numbers of samples, or theirs has one that is not positive.
    """
    if min(theirs, default=1.0) <= 0:
        raise ValueError("a rate or time of zero or less is no measurement")
    return Figure.of([a / b for a, b in zip(ours, theirs, strict=True)])


@dataclass(frozen=True)
class Target:
    """What the ratio to `against` should be: at least, or else at most, `bound`."""

    against: str
    bound: float
    least: bool = True


@dataclass(frozen=True)
class Row:
    """One figure. `ratios` are it over others of the same run, by name; `note` says why there is no figure, or what is
    to be known of it."""

    table: str
    name: str
    contender: str
    unit: str
    figure: Figure | None = None
    ratios: Mapping[str, Figure] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    note: str = ""

    def reached(self, target: Target) -> bool | None:
        """Whether the median of the target's ratio reaches it; None where there is no such ratio."""
        if target.against not in self.ratios:
            return None
        value = self.ratios[target.against].median
        return value >= target.bound if target.least else value <= target.bound

    @property
    def met(self) -> bool | None:
        """Whether all targets that have a ratio are reached; None where none has."""
        reached = [self.reached(target) for target in self.targets if target.against in self.ratios]
        return all(reached) if reached else None

    def to_json(self) -> dict[str, Any]:
        """The fields, and `met`."""
        return asdict(self) | {"met": self.met}


def interleave(arms: Mapping[str, Callable[[], T]], rounds: int, warm_up: bool = True) -> dict[str, list[T]]:
    """Samples of each arm, one a round, after a round that is left out unless they are warm. Every other round goes
    through the arms backwards, so that none always follows the same one."""
    samples: dict[str, list[T]] = {name: [] for name in arms}
    for turn in range(0 if warm_up else 1, rounds + 1):
        for name in list(arms)[:: -1 if turn % 2 else 1]:
            value = arms[name]()
            if turn:
                samples[name].append(value)
    return samples

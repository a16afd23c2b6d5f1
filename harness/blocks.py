"""Champion and candidate in turn: blocks of four measurements, until enough is known."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, Protocol, TypeVar

from harness.keep import log_ratios, settled, speedup

CHAMPION, CANDIDATE = "champion", "candidate"
SLOW = 1.5  # a block that takes so many times the median of those before was disturbed, and is measured again


class Timed(Protocol):
    """A measurement, in seconds on the parent's clock."""

    @property
    def seconds(self) -> float:
        """How long it took."""


T = TypeVar("T", bound=Timed)


@dataclass
class Blocks(Generic[T]):
    """The measurements of both arms in the order in which they were made, two a block.

    `again`: blocks that were left out and measured again, because the machine was slow.
    """

    champion: list[T] = field(default_factory=list)
    candidate: list[T] = field(default_factory=list)
    champion_first: list[bool] = field(default_factory=list)
    again: int = 0

    def ratios(self) -> Sequence[float]:
        """The log-ratio of each block."""
        old, new = ([found.seconds for found in arm] for arm in (self.champion, self.candidate))
        return log_ratios(old, new)


def measure(once: Callable[[str], T], blocks: tuple[int, int], budget_s: float, gain: float) -> Blocks[T]:
    """Measures arms by name, at least and at most so many blocks, until `gain` is shown or shown not to be there.

    No other block than the least begins after `budget_s`. A coin says for each whether it is ABBA or BAAB: a place in
    the block that is always the slower one would pass for a gain (see `harness.keep.bounds`).
    """
    least, most = blocks
    made, usual = Blocks[T](), list[float]()
    end = time.perf_counter() + budget_s
    while len(usual) < most:
        first, second = (CHAMPION, CANDIDATE) if secrets.randbits(1) else (CANDIDATE, CHAMPION)
        block = [(arm, once(arm)) for arm in (first, second, second, first)]
        took = sum(found.seconds for _, found in block)
        if len(usual) >= 3 and took > SLOW * median(usual) and made.again < most:
            made.again += 1
            continue
        usual.append(took)
        made.champion_first.append(first == CHAMPION)
        made.champion += [found for arm, found in block if arm == CHAMPION]
        made.candidate += [found for arm, found in block if arm == CANDIDATE]
        if len(usual) >= least and (time.perf_counter() > end or settled(speedup(made.ratios()), gain)):
            break
    return made

"""Champion and candidate in turn: blocks of four measurements, until enough is known."""

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from harness.costs import Part, spent_on
from harness.keep import log_ratios, settled, speedup
from harness.load import Counters, Disturbance, Watch, counters

CHAMPION, CANDIDATE = "champion", "candidate"


class Timed(Protocol):
    """A measurement, in seconds on the parent's clock."""

    @property
    def seconds(self) -> float:
        """How long it took."""


T = TypeVar("T", bound=Timed)


@dataclass
class Blocks(Generic[T]):
    """The measurements of both arms in the order in which they were made, two a block.

    again: blocks that were left out and measured again, by what disturbed them (`harness.load.Disturbance`).
    disturbed: those that count all the same, because too many had been left out before.
    seconds: that the blocks that count took, with all that is done between their measurements.
    """

    champion: list[T] = field(default_factory=list)
    candidate: list[T] = field(default_factory=list)
    champion_first: list[bool] = field(default_factory=list)
    again: dict[str, int] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __len__(self) -> int:
        """The blocks that count."""
        return len(self.champion_first)

    @property
    def block_s(self) -> float:
        """Seconds of a block that counts."""
        return self.seconds / len(self)

    def add(self, block: Sequence[tuple[str, T]]) -> None:
        """Counts a block: its four measurements and their arms, in the order in which they were made."""
        self.champion_first.append(block[0][0] == CHAMPION)
        self.champion += [found for arm, found in block if arm == CHAMPION]
        self.candidate += [found for arm, found in block if arm == CANDIDATE]

    def leaves_out(self, disturbance: Disturbance, most: int) -> bool:
        """Notes a disturbed block. It is left out unless `most` were before."""
        left_out = sum(self.again.values()) < most
        noted = self.again if left_out else self.disturbed
        noted[disturbance] = noted.get(disturbance, 0) + 1
        return left_out

    def ratios(self) -> Sequence[float]:
        """The log-ratio of each block."""
        old, new = ([found.seconds for found in arm] for arm in (self.champion, self.candidate))
        return log_ratios(old, new)


def fitting(blocks: tuple[int, int], budget_s: float, block_s: float) -> int:
    """How many blocks `measure` makes of a gain that nothing settles, when each takes `block_s`."""
    least, most = blocks
    return min(max(least, math.floor(budget_s / block_s) + 1), most)


def measure(
    once: Callable[[str], T],
    blocks: tuple[int, int],
    budget_s: float,
    gain: float,
    read: Callable[[], Counters] = counters,
) -> Blocks[T]:
    """Measures arms by name, at least and at most so many blocks, until `gain` is shown or shown not to be there.

    No other block than the least begins once those that count have taken `budget_s`. A coin says for each whether it
    is ABBA or BAAB: a place in the block that is always the slower one would pass for a gain (see
    `harness.keep.bounds`).

    A block during which the machine was disturbed is left out, both arms of it, and measured again. `read` alone says
    so, and no measured time, so that a candidate cannot have its slow blocks left out. One that makes the machine
    throttle slows the champion beside it too, and is rid of no more blocks than the least: after those all count, as on
    a machine that is never quiet.
    """
    least, most = blocks
    made, watch = Blocks[T](), Watch(read)
    while len(made) < most:
        started = time.perf_counter()
        first, second = (CHAMPION, CANDIDATE) if secrets.randbits(1) else (CANDIDATE, CHAMPION)
        block = [(arm, once(arm)) for arm in (first, second, second, first)]
        with spent_on(Part.MACHINE):
            disturbance = watch.look()
        if disturbance and made.leaves_out(disturbance, least):
            continue
        made.add(block)
        made.seconds += time.perf_counter() - started
        if len(made) >= least and (made.seconds > budget_s or settled(speedup(made.ratios()), gain)):
            break
    return made

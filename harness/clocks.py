"""Two clocks on the same work: this process's, which counts, and that of the process that did it."""

from statistics import median
from typing import Protocol, TypeVar

from harness.blocks import Blocks
from harness.candidate import Failure, Status

HIDDEN_SHARE, HIDDEN_S = 0.25, 2e-3  # how far an honest process's clock may be from the parent's


class Told(Protocol):
    """Seconds of some work, on this process's clock and, as it says, on that of the process that did it."""

    @property
    def seconds(self) -> float:
        """On ours."""

    @property
    def own_seconds(self) -> float:
        """On its own."""


T = TypeVar("T", bound=Told)


def hidden_s(blocks: Blocks[T]) -> float:
    """Seconds of a measurement that the candidate's process does not tell of, beyond those that the champion's does
    not: asking and answering take some."""
    old, new = (median(r.seconds - r.own_seconds for r in arm) for arm in (blocks.champion, blocks.candidate))
    return new - old


def disagreement(blocks: Blocks[T]) -> Failure | None:
    """What is wrong when the candidate's process tells of other times than passed."""
    usual, hidden = median(r.seconds for r in blocks.candidate), hidden_s(blocks)
    if hidden <= HIDDEN_SHARE * usual + HIDDEN_S:
        return None
    reason = f"its process's clock is {1e3 * hidden:.1f} ms short of the {1e3 * usual:.1f} ms that passed"
    return Failure(Status.DISHONEST, reason)

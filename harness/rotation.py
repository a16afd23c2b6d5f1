"""Copies of a call's arrays, used in turn, so that no cache holds the next one."""

from dataclasses import dataclass
from typing import Any

ROTATED_BYTES = 96 << 20  # more than the last-level cache of the machines this is for
MIN_ROTATIONS, MAX_ROTATIONS = 4, 64


@dataclass
class Rotation:
    """Takes its copies in turn."""

    copies: list[Any]
    turn: int = 0

    def take(self, count: int) -> list[Any]:
        """The next `count` copies."""
        taken = [self.copies[(self.turn + i) % len(self.copies)] for i in range(count)]
        self.turn += count
        return taken


def rotations(nbytes: int, rotated: int = ROTATED_BYTES) -> int:
    """How many copies of a call that touches `nbytes` are more than `rotated` bytes together."""
    return min(max(rotated // max(nbytes, 1) + 1, MIN_ROTATIONS), MAX_ROTATIONS)

"""What the launches of a repetition are given: activations, all of them new, and copies of the weights in turn.

No launch of a process gets what another of it had: to give an earlier answer again is always wrong.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baseline.contract import Contract
from baseline.elements import Array
from baseline.samples import sample_inputs
from harness.copies import map_copies
from harness.slots import fresh


@dataclass(frozen=True)
class Draw:
    """Of so many launches. first: the copy that the first launch gets; the next ones get those after it. seed: of the
    activations."""

    launches: int
    first: int
    seed: int


class Draws:
    """Draws what no process can know. The turn of the copies is counted here: no process is asked which it took."""

    def __init__(self, contract: Contract, inputs: Path) -> None:
        """`inputs` is the file of all copies (`harness.copies`)."""
        self._contract, self._fresh = contract, fresh(contract)
        self._copies = len(next(iter(map_copies(inputs).values())))
        self._turn = 0

    def draw(self, launches: int) -> Draw:
        """For the next so many launches."""
        first = self._turn
        self._turn = (first + launches) % self._copies
        return Draw(launches, first, secrets.randbits(128))

    def activations(self, draw: Draw) -> dict[str, Array]:
        """[launches, ...] by name: the same ones whenever the same draw is asked for."""
        random, case = np.random.default_rng(draw.seed), self._contract.bench[0]
        wanted = self._fresh.__contains__
        return sample_inputs(self._contract, case, random, only=wanted, calls=(draw.launches,))

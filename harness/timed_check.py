"""The activations of the timed launches, all of them new, and the check of what was made of them.

No launch gets what another had: to give an earlier answer again is always wrong. After each repetition all outputs must
be written; whether they are right is looked at in a few. That the inputs which all launches share, the weights, are
still what they were is the contestant's own word.
"""

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baseline.elements import Array
from baseline.samples import sample_inputs
from harness.build import OpLibrary
from harness.candidate import Failure, Status
from harness.contestant import Contestant
from harness.guarded import array_hash
from harness.recipes import FIRST
from harness.slots import fresh, unwritten
from harness.tolerance import compare
from harness.trials import Trial, cut


@dataclass(frozen=True)
class Taken:
    """What a launch made: its activations, its outputs, the hashes of its other inputs afterwards."""

    activations: Mapping[str, Array]
    outputs: Mapping[str, Array]
    hashes: Mapping[str, Any]


class TimedCheck:
    """Draws activations, and compares what a launch made of them. Nothing but the activations goes to a contestant."""

    def __init__(self, library: OpLibrary, inputs: Path, noise: Mapping[str, float], factor: float) -> None:
        """`inputs` holds what all copies begin with; `factor` times `noise` (of `harness.verify`) is the tolerance."""
        self._contract, self._fresh = library.contract, fresh(library.contract)
        with np.load(inputs) as arrays:
            self._given = {name: arrays[name] for name in arrays.files}
        shared = (t.name for t in library.contract.inputs if t not in self._fresh)
        self._hashes = {name: array_hash(self._given[name]) for name in shared}
        self._noise, self._factor = noise, factor
        self._random = np.random.default_rng(secrets.randbits(128))

    def draw(self, launches: int) -> dict[str, Array]:
        """Activations of so many launches, [launches, ...] by name. Nobody keeps their seed."""
        case = self._contract.bench[0]
        wanted = self._fresh.__contains__
        draws = [sample_inputs(self._contract, case, self._random, only=wanted) for _ in range(launches)]
        return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}

    def look(self, contestant: Contestant, activations: Mapping[str, Array]) -> Failure | None:
        """Whether the launches on these activations, the last that were run, have left anything undone, or changed what
        they were given."""
        for name, values in activations.items():
            if not np.array_equal(contestant.slots.arrays[name][: len(values)], values):
                return _wrong(f"modified its input {name}")
        for name, made in contestant.left(len(next(iter(activations.values())))).items():
            if unwritten(made):
                count = next(filter(None, map(unwritten, made)))
                return _wrong(f"left {count} of {made[0].size} elements of {name} unwritten when it answered")
        return None

    def take(self, contestant: Contestant, arm: str, activations: Mapping[str, Array]) -> Taken:
        """What one of the launches on these activations, the last that were run, has made: nobody knows which."""
        number = secrets.randbelow(len(next(iter(activations.values()))))
        made, hashes = contestant.collect(arm, number)
        return Taken({name: values[number].copy() for name, values in activations.items()}, made, hashes)

    def judge(self, taken: Taken) -> Failure | None:
        """What is wrong with what was taken."""
        problem = self._modified(taken.hashes) or self._deviation(taken)
        return _wrong(problem) if problem else None

    def _modified(self, hashes: Mapping[str, Any]) -> str:
        changed = (name for name, wanted in self._hashes.items() if hashes.get(name) != wanted)
        return next((f"modified its input {name}" for name in changed), "")

    def _deviation(self, taken: Taken) -> str:
        given, case = {**self._given, **taken.activations}, self._contract.bench[0]
        small = Trial(cut(self._contract, case), FIRST)  # of which the noise is known
        for tensor in self._contract.outputs:
            # Where the bench shape is never checked in full its noise is not known: what is not a number still shows.
            noise = self._noise.get(small.of(tensor.name), math.inf)
            allowed, random = self._factor * noise, np.random.default_rng()
            compared = compare(self._contract, case, tensor, given, taken.outputs[tensor.name], allowed, random)
            if compared.problem:
                return compared.problem
        return ""


def _wrong(problem: str) -> Failure:
    return Failure(Status.WRONG, f"in the timed loop: {problem}")

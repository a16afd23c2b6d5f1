"""The check of what the timed launches made.

After each repetition all outputs must be written; whether they are right is looked at in a few launches here, and in
all of a candidate that would be kept by `harness.witness`. That the inputs which launches share, the weights, are still
what they were is the contestant's own word.
"""

import math
import secrets
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baseline.elements import Array
from harness.build import OpLibrary
from harness.candidate import Failure, Status
from harness.contestant import Contestant
from harness.copies import map_copies
from harness.guarded import array_hash
from harness.recipes import FIRST
from harness.slots import unwritten
from harness.tolerance import compare
from harness.trials import Trial, cut


@dataclass(frozen=True)
class Taken:
    """What a launch made: its activations, which copy of the other inputs it had, its outputs, and the hashes of its
    other inputs afterwards."""

    activations: Mapping[str, Array]
    copy: int
    outputs: Mapping[str, Array]
    hashes: Mapping[str, Any]


class TimedCheck:
    """Compares what a launch made with what it was to make."""

    def __init__(self, library: OpLibrary, inputs: Path, noise: Mapping[str, float], factor: float) -> None:
        """`inputs` is the file of all copies; `factor` times `noise` (of `harness.verify`) is the tolerance."""
        self._contract, self._copies = library.contract, map_copies(inputs)
        self._noise, self._factor = noise, factor
        self.limits: dict[str, float] = {}  # how far from the oracle what was judged could be at most, by output

    def look(self, contestant: Contestant, activations: Mapping[str, Array]) -> Failure | None:
        """Whether the launches on these activations, the last that were run, have left anything undone, or changed what
        they were given."""
        for name, values in activations.items():
            if not np.array_equal(contestant.slots.arrays[name][: len(values)], values):
                return wrong(f"modified its input {name}")
        for name, made in contestant.left(len(next(iter(activations.values())))).items():
            if unwritten(made):
                count = next(filter(None, map(unwritten, made)))
                return wrong(f"left {count} of {made[0].size} elements of {name} unwritten when it answered")
        return None

    def take(self, contestant: Contestant, arm: str, activations: Mapping[str, Array], first: int) -> Taken:
        """What one of the launches on these activations, the last that were run, has made: nobody knows which. Copy
        `first` was the first launch's."""
        number = secrets.randbelow(len(next(iter(activations.values()))))
        made, hashes = contestant.collect(arm, number)
        own = {name: values[number].copy() for name, values in activations.items()}
        return Taken(own, first + number, made, hashes)

    def judge(self, taken: Collection[Taken]) -> Failure | None:
        """What is wrong with what was taken, each on a thread of its own: the oracle is slow."""
        with ThreadPoolExecutor(max(len(taken), 1)) as pool:
            judged = list(pool.map(self._judged, taken))
        for _, limits in judged:
            for name, limit in limits.items():
                self.limits[name] = max(limit, self.limits.get(name, 0.0))
        return next((wrong(problem) for problem, _ in judged if problem), None)

    def _judged(self, taken: Taken) -> tuple[str, dict[str, float]]:
        """What is wrong, '' if nothing, and how far from the oracle each output could be that was looked at."""
        names = self._copies.keys() - taken.activations.keys()
        shared = {name: self._copies[name][taken.copy % len(self._copies[name])] for name in names}
        if problem := _modified(shared, taken.hashes):
            return problem, {}
        return self._deviation({**shared, **taken.activations}, taken.outputs)

    def _deviation(self, given: Mapping[str, Array], outputs: Mapping[str, Array]) -> tuple[str, dict[str, float]]:
        limits: dict[str, float] = {}
        case = self._contract.bench[0]
        small = Trial(cut(self._contract, case), FIRST)  # of which the noise is known
        for tensor in self._contract.outputs:
            # Where the bench shape is never checked in full its noise is not known: what is not a number still shows.
            noise = self._noise.get(small.of(tensor.name), math.inf)
            allowed, random = self._factor * noise, np.random.default_rng()
            compared = compare(self._contract, case, tensor, given, outputs[tensor.name], allowed, random)
            limits[tensor.name] = compared.limit
            if compared.problem:
                return compared.problem, limits
        return "", limits


def _modified(shared: Mapping[str, Array], hashes: Mapping[str, Any]) -> str:
    changed = (name for name, array in shared.items() if hashes.get(name) != array_hash(array))
    return next((f"modified its input {name}" for name in changed), "")


def wrong(problem: str) -> Failure:
    """The failure of a candidate that makes something else than it is to make while it is timed."""
    return Failure(Status.WRONG, f"in the timed loop: {problem}")

"""The activations of the timed launches, all of them new, and the check of what was made of them.

No launch gets what another had: to give an earlier answer again is always wrong.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from baseline.contract import Tensor
from baseline.elements import Array
from baseline.samples import sample_inputs
from harness.build import OpLibrary
from harness.candidate import Failure, Status
from harness.contestant import Contestant
from harness.guarded import array_hash
from harness.recipes import FIRST
from harness.tolerance import compare
from harness.trials import Trial, cut

FRESH_BYTES = 1 << 20  # larger inputs are weights, or a state: the same for all


@dataclass(frozen=True)
class Taken:
    """What a launch made: its activations, the hashes of its inputs afterwards, the file of its outputs."""

    activations: Mapping[str, Array]
    hashes: tuple[str, ...]
    file: Path


class TimedCheck:
    """Draws activations, and compares what a launch made of them. Nothing but the activations goes to a contestant."""

    def __init__(
        self, library: OpLibrary, inputs: Path, folder: Path, noise: Mapping[str, float], factor: float
    ) -> None:
        """`inputs` holds what all copies begin with; `factor` times `noise` (of `harness.verify`) is the tolerance."""
        self._contract, self._folder = library.contract, folder
        with np.load(inputs) as arrays:
            self._given = {name: arrays[name] for name in arrays.files}
        self._hashes = {name: array_hash(array) for name, array in self._given.items()}
        self._noise, self._factor = noise, factor
        self._random = np.random.default_rng(secrets.randbits(128))

    def draw(self, launches: int) -> dict[str, Array]:
        """Activations of so many launches, [launches, ...] by name. Nobody keeps their seed."""
        case = self._contract.bench[0]
        draws = [sample_inputs(self._contract, case, self._random, only=self._is_fresh) for _ in range(launches)]
        return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}

    def _is_fresh(self, tensor: Tensor) -> bool:
        return tensor.type in ("T", "float32") and self._given[tensor.name].nbytes <= FRESH_BYTES

    def take(self, contestant: Contestant, arm: str, activations: Mapping[str, Array], place: int) -> Taken:
        """What one of the launches on these activations, the last that were run, has made: nobody knows which.

        It is kept until another is taken at the same `place`.
        """
        launches = len(next(iter(activations.values())))
        back = secrets.randbelow(min(launches, contestant.copies))
        file = self._folder / f"contest.outputs.{place}.npz"
        file.unlink(missing_ok=True)
        hashes = contestant.collect(arm, back, file)
        return Taken({name: values[-1 - back].copy() for name, values in activations.items()}, tuple(hashes), file)

    def judge(self, taken: Taken) -> Failure | None:
        """What is wrong with what was taken."""
        given = {**self._given, **taken.activations}
        try:
            problem = self._modified(given, taken.hashes) or self._wrong(given, taken.file)
        except (OSError, KeyError, ValueError, TypeError, IndexError, BadZipFile) as error:
            return Failure(Status.DISHONEST, f"in the timed loop: left no answers: {error!r}")
        return Failure(Status.WRONG, f"in the timed loop: {problem}") if problem else None

    def _modified(self, given: Mapping[str, Array], hashes: Sequence[str]) -> str:
        for tensor, found in zip(self._contract.inputs, hashes, strict=True):
            wanted = self._hashes[tensor.name] if not self._is_fresh(tensor) else array_hash(given[tensor.name])
            if found != wanted:
                return f"modified its input {tensor.name}"
        return ""

    def _wrong(self, given: Mapping[str, Array], file: Path) -> str:
        with np.load(file) as arrays:
            outputs = {t.name: arrays[str(i)] for i, t in enumerate(self._contract.outputs)}
        case = self._contract.bench[0]
        small = Trial(cut(self._contract, case), FIRST)  # of which the noise is known
        for tensor in self._contract.outputs:
            # Where the bench shape is never checked in full its noise is not known: what is not a number still shows.
            noise = self._noise.get(small.of(tensor.name), math.inf)
            allowed, random = self._factor * noise, np.random.default_rng()
            compared = compare(self._contract, case, tensor, given, outputs[tensor.name], allowed, random)
            if compared.problem:
                return compared.problem
        return ""

"""The check after the timed loop: what the candidate left in the timed buffers, and what it makes of other activations
in the same places."""

import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from baseline.contract import Tensor
from baseline.elements import Array
from baseline.samples import sample_inputs
from harness.build import OpLibrary
from harness.candidate import Failure, Status
from harness.contestant import Contestant
from harness.guarded import array_hash
from harness.verify import Trial, compare, cut

FRESH_BYTES = 1 << 20  # larger inputs are weights, or a state: the same for all


class TimedCheck:
    """Holds what the timed buffers were given; nothing of it but the activations ever goes to a contestant."""

    def __init__(self, library: OpLibrary, inputs: Path, folder: Path, copies: int, noise: Mapping[str, float]) -> None:
        """`inputs` holds the inputs that all copies begin with; `noise` is that of `harness.verify`."""
        self._library, self._folder, self._copies = library, folder, copies
        with np.load(inputs) as arrays:
            self._given = {name: arrays[name] for name in arrays.files}
        self._hashes = {name: array_hash(array) for name, array in self._given.items()}
        contract, case = library.contract, library.contract.bench[0]
        self._trial, small = Trial(case, "normal"), Trial(cut(contract, case), "normal")
        self._noise = {self._trial.of(t.name): noise[small.of(t.name)] for t in contract.outputs}
        self._fresh: list[dict[str, Array]] = []
        self.file = self.refreshed()

    def refreshed(self) -> Path:
        """A file of new activations, each copy's its own: [copies, ...] by name. Their seed is kept by nobody."""
        contract, case = self._library.contract, self._library.contract.bench[0]
        random = np.random.default_rng(secrets.randbits(128))
        draws = [sample_inputs(contract, case, random, only=self._is_fresh) for _ in range(self._copies)]
        self._fresh = [dict(draw) for draw in draws]
        file = self._folder / "contest.activations.npz"
        np.savez(file, allow_pickle=False, **{name: np.stack([d[name] for d in draws]) for name in draws[0]})
        return file

    def _is_fresh(self, tensor: Tensor) -> bool:
        return tensor.type in ("T", "float32") and self._given[tensor.name].nbytes <= FRESH_BYTES

    def run(self, candidate: Contestant) -> Failure | None:
        """What is wrong with the results of the last timed launch, or of launches on other activations."""
        failure = self._judge(candidate, candidate.last_copy, "in the timed loop")
        if failure is not None:
            return failure
        candidate.refresh(self.refreshed())
        candidate.poison()
        candidate.run(self._copies)
        return self._judge(candidate, secrets.randbelow(self._copies), "after the timed loop, on other activations")

    def _judge(self, candidate: Contestant, copy: int, when: str) -> Failure | None:
        contract, file = self._library.contract, self._folder / "contest.outputs.npz"
        found = candidate.collect(copy, file)
        if (name := self._modified(found)) is not None:
            return Failure(Status.WRONG, f"{when}: modified its input {name}")
        with np.load(file) as arrays:
            outputs = {t.name: arrays[str(i)] for i, t in enumerate(contract.outputs)}
        _, problem = compare(contract, self._trial, {**self._given, **self._fresh[copy]}, outputs, self._noise)
        return Failure(Status.WRONG, f"{when}: {problem}") if problem else None

    def _modified(self, hashes: list[list[str]]) -> str | None:
        """The first input that is not what it was."""
        for fresh, found in zip(self._fresh, hashes, strict=True):
            wanted = {**self._hashes, **{name: array_hash(array) for name, array in fresh.items()}}
            for tensor, now in zip(self._library.contract.inputs, found, strict=True):
                if now != wanted[tensor.name]:
                    return tensor.name
        return None

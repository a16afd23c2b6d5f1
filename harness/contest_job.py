"""The child's `contest` job: kernels at the bench shape, which run when the parent says so."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from baseline.elements import Array
from harness import launch
from harness.child import begin
from harness.guarded import POISON, array_hash
from harness.listening import channel, listen

Arrays = list[Array]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answers commands: see the methods of `Arena`."""
    answers, arena = channel(), Arena(job)
    begin(job, max(call.get("threads", 1) for call in job["arms"].values()))
    arena.load(job["arms"])
    return listen(answers, arena, job["timeout_s"])


class Arena:
    """Copies of a call's inputs and outputs, taken in turn, so that no cache holds the next one; and the activations of
    each launch, which take their places among the inputs."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """`inputs` is a file of all inputs, of which `copies` are made."""
        self._names: list[str] = job["input_order"]
        with np.load(job["inputs"]) as arrays:
            given = [arrays[name] for name in self._names]
        self._inputs: list[Arrays] = [given, *([a.copy() for a in given] for _ in range(job["copies"] - 1))]
        blank = [np.empty(o["shape"], o["dtype"]) for o in job["outputs"]]
        self._outputs: list[Arrays] = [[np.empty_like(o) for o in blank] for _ in range(job["copies"])]
        self._activations: dict[str, Array] = {}
        self._launches: list[tuple[Arrays, Arrays]] = []
        self._turn = 0

    def load(self, arms: Mapping[str, Any]) -> None:
        """Loads the kernels: their code runs from here on."""
        self._kernels = {name: launch.load(call) for name, call in arms.items()}

    def prepare(self, arm: str, file: str) -> dict[str, Any]:
        """Makes an arm's next launches ready, one for each of the activations in `file`: [launches, ...] by name.

        Every output element becomes what no kernel writes.
        """
        with np.load(file) as arrays:
            for name in arrays.files:
                self._keep(name, arrays[name])
        for copy in self._outputs:
            for output in copy:
                output.reshape(-1).view(np.uint8)[:] = POISON
        self._launches = list(self._pairs())
        self._turn += len(self._launches)
        self._placed = [self._kernels[arm].place(*pair) for pair in self._launches]
        return {}

    def _keep(self, name: str, values: Array) -> None:
        """In the same memory each time, where it fits: an address says nothing of what lies there."""
        kept = self._activations.get(name)
        if kept is not None and kept.shape == values.shape:
            kept[...] = values
        else:
            self._activations[name] = values

    def _pairs(self) -> Iterator[tuple[Arrays, Arrays]]:
        count = len(next(iter(self._activations.values())))
        for number in range(count):
            copy = (self._turn + number) % len(self._inputs)
            fresh = {name: values[number] for name, values in self._activations.items()}
            given = [fresh.get(name, a) for name, a in zip(self._names, self._inputs[copy], strict=True)]
            yield given, self._outputs[copy]

    def run(self, arm: str) -> dict[str, Any]:
        """Launches what was prepared for an arm. This process's own clock is only reported."""
        return {"seconds": self._kernels[arm].seconds(self._placed) * len(self._placed)}

    def collect(self, arm: str, back: int, file: str) -> dict[str, Any]:
        """Writes the outputs of the launch that was so many before the last one; the hashes of its inputs."""
        inputs, outputs = self._launches[-1 - back]
        found = self._kernels[arm].results(inputs, outputs)
        np.savez(file, allow_pickle=False, **{str(i): output for i, output in enumerate(found)})
        return {"hashes": [array_hash(a) for a in inputs]}

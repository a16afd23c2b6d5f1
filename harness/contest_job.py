"""The child's `contest` job: kernels at the bench shape, which run when the parent says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baseline.elements import Array
from harness import launch
from harness.child import begin
from harness.copies import load_copies
from harness.guarded import array_hash
from harness.listening import channel, listen
from harness.slots import Slots

Arrays = list[Array]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answers commands: see the methods of `Arena`."""
    answers, arena = channel(), Arena(job)
    begin(job, max(call.get("threads", 1) for call in job["arms"].values()))
    arena.load(job["arms"])
    return listen(answers, arena, job["timeout_s"])


class Arena:
    """Copies of the inputs that all launches share (`harness.copies`), and slots for the activations and the outputs of
    each."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """`inputs` is the file of all copies; `slots` are the parent's."""
        # One object each, for good: a launch on a GPU keeps its own copy of what it has seen.
        self._copies = {name: list(copies) for name, copies in load_copies(Path(job["inputs"])).items()}
        self._slots = Slots.from_json(job["slots"]).arrays
        self._outputs = [name for name in self._slots if name not in self._copies]
        self._launches: list[tuple[Arrays, Arrays]] = []

    def load(self, arms: Mapping[str, Any]) -> None:
        """Loads the kernels: their code runs from here on."""
        self._kernels = {name: launch.load(call) for name, call in arms.items()}

    def prepare(self, arm: str, launches: int, first: int) -> dict[str, Any]:
        """Makes an arm's next launches ready, one for each of the first so many slots, on the copies from `first`."""
        self._launches = [self._arrays(number, first + number) for number in range(launches)]
        self._placed = self._kernels[arm].place(self._launches)
        return {}

    def _arrays(self, number: int, copy: int) -> tuple[Arrays, Arrays]:
        copies = self._copies.items()
        inputs = [self._slots[name][number] if name in self._slots else all_[copy % len(all_)] for name, all_ in copies]
        return inputs, [self._slots[name][number] for name in self._outputs]

    def run(self, arm: str) -> dict[str, Any]:
        """Launches what was prepared for an arm. This process's own clock is only reported."""
        return {"seconds": self._kernels[arm].seconds(self._placed) * len(self._placed)}

    def collect(self, arm: str, number: int) -> dict[str, Any]:
        """Has the outputs of a launch lie in its slot, if they do not; the hashes of its other inputs, by name."""
        inputs, outputs = self._launches[number]
        self._kernels[arm].results(self._placed[number], outputs)
        own = [pair for pair in zip(self._copies, inputs, strict=True) if pair[0] not in self._slots]
        return {"hashes": {name: array_hash(array) for name, array in own}}

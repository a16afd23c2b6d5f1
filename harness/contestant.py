"""Kernels in a process of their own, which launches them when it is told to, and this process's clock beside it.

Native code may change the Python that runs it, so that its process says that work is done which is not, or does it
ahead of the clock. Therefore it stands still but for the time that the clock runs: it gets its activations when it
cannot look at them, and has stopped before the clock does. What lies in the slots then is what it made in that time.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.elements import Array
from harness.build import OpLibrary
from harness.conversation import Conversation
from harness.slots import Slots, fields, poison


@dataclass(frozen=True)
class Repetition:
    """Seconds of some work, on this process's clock and, as it says, on that of the process that did it."""

    seconds: float
    own_seconds: float


class Contestant(Conversation):
    """The parent's side of `harness.contest_job`: one arm or several."""

    def __init__(self, arms: Mapping[str, OpLibrary], inputs: Path, folder: Path, timeout_s: float) -> None:
        """inputs: the file of all copies of the inputs (`harness.copies`). See `Conversation`."""
        library = next(iter(arms.values()))
        self._outputs = [tensor.name for tensor in library.contract.outputs]
        self.slots = Slots.new(fields(library.contract))
        passed = (self.slots.descriptor,), library.backend.native
        super().__init__(_job(arms, inputs, self.slots), tuple(arms), folder, timeout_s, *passed)
        os.close(self.slots.descriptor)

    def prepare(self, arm: str, activations: Mapping[str, Array], first: int) -> None:
        """Makes an arm's next launches ready, one for each of `activations`: [launches, ...] by name, at most as many
        as there are slots. The first gets copy `first` of the other inputs, the next ones get those after it."""
        launches = len(next(iter(activations.values())))
        if self.native:
            self.ask("prepare", arm=arm, launches=launches, first=first)
        for name, values in activations.items():
            self.slots.arrays[name][:launches] = values
        for name in self._outputs:
            poison(self.slots.arrays[name][:launches])
        if not self.native:  # MLX's arrays are copies of what lies in the slots
            self.ask("prepare", arm=arm, launches=launches, first=first)

    def run(self, arm: str) -> Repetition:
        """Launches what was prepared. Native code stands until it is asked again."""
        answer, seconds = self.clocked("run", arm=arm)
        return Repetition(seconds, number(answer.get("seconds")))

    def rerun(self, arm: str) -> None:
        """As `run`, where what comes of it counts and no time does."""
        self.ask("run", arm=arm)

    def left(self, launches: int) -> dict[str, Array]:
        """The outputs of so many launches, [launches, ...] by name, as they lie in the slots: those of native code."""
        return {name: self.slots.arrays[name][:launches] for name in self._outputs if self.native}

    def collect(self, arm: str, number: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """Copies of the outputs of a launch; and what its process, which then goes on, says are the hashes of those of
        its inputs that lie in no slot, by name."""
        made = self._copies(number)
        hashes = self.ask("collect", arm=arm, number=number).get("hashes")
        return made if self.native else self._copies(number), hashes if isinstance(hashes, dict) else {}

    def _copies(self, number: int) -> dict[str, Array]:
        return {name: self.slots.arrays[name][number].copy() for name in self._outputs}


def _job(arms: Mapping[str, OpLibrary], inputs: Path, slots: Slots) -> dict[str, Any]:
    library = next(iter(arms.values()))
    contract = library.contract
    calls = {name: arm.call(contract.bench[0]) for name, arm in arms.items()}
    return {
        "kind": "contest",
        "device": library.backend.device,
        "inputs": str(inputs.resolve()),
        "slots": slots.to_json(),
        "arms": calls,
        "calls": list(calls.values()),
    }


def number(value: Any) -> float:
    """What a child says that should be a number; 0 for what is none, or is infinite."""
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else 0.0

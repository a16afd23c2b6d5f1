"""The child's `contest` job: one kernel at the bench shape, which runs when the parent says so.

The parent's commands are lines of JSON on standard input, the answers lines on what was standard output; whatever else
the process prints goes to its log. An answer repeats the number that came with its command.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from harness import launch
from harness.child import begin
from harness.guarded import POISON, array_hash
from harness.rotation import Rotation


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answers commands until there are no more: see the methods of `Arena`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arena = Arena(job)
    begin(job, job["call"].get("threads", 1))
    arena.load(job["call"])
    _answer(answers, {"ready": arena.count})
    for line in sys.stdin:
        command = json.loads(line)
        signal.alarm(int(job["timeout_s"]) + 5)  # anew: it ends a process whose parent is gone
        _answer(answers, {"number": command["number"], **getattr(arena, command["do"])(**command["with"])})
    return {}


def _answer(answers: IO[str], answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class Arena:
    """Copies of a call's arrays, taken in turn, so that no cache holds the next one."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """`inputs` is a file of all inputs; `copies` of them are made. `fresh` names those that `refresh` replaces."""
        self.names: list[str] = job["input_order"]
        self.count: int = job["copies"]
        with np.load(job["inputs"]) as arrays:
            self.inputs = [[arrays[name] for name in self.names]]
        self.inputs += [[a.copy() for a in self.inputs[0]] for _ in range(self.count - 1)]
        # An output can be as large as the inputs (a state): it too must not stay in a cache.
        outputs = [np.empty(o["shape"], o["dtype"]) for o in job["outputs"]]
        self.outputs = [[np.empty_like(o) for o in outputs] for _ in range(self.count)]
        self.poison()

    def load(self, call: Mapping[str, Any]) -> None:
        """Loads the kernel: its code runs from here on."""
        self.kernel = launch.load(call)
        self._place()

    def _place(self) -> None:
        pairs = zip(self.inputs, self.outputs, strict=True)
        self.rotation = Rotation([self.kernel.place(*arrays) for arrays in pairs])

    def run(self, launches: int) -> dict[str, Any]:
        """Launches the kernel so many times, each time on the next copy. This process's own clock is only reported."""
        return {"seconds": self.kernel.seconds(self.rotation.take(launches)) * launches}

    def refresh(self, file: str) -> dict[str, Any]:
        """Other activations in the same places: arrays by name, [copies, ...]."""
        with np.load(file) as arrays:
            for name in arrays.files:
                at = self.names.index(name)
                for copy, values in zip(self.inputs, arrays[name], strict=True):
                    copy[at][...] = values
        self._place()
        return {}

    def poison(self) -> dict[str, Any]:
        """Every output element becomes what no kernel writes."""
        for copy in self.outputs:
            for output in copy:
                output.reshape(-1).view(np.uint8)[:] = POISON
        return {}

    def collect(self, copy: int, file: str) -> dict[str, Any]:
        """Writes the outputs of a copy as they are, 0.npy and so on; the hashes of all inputs of all copies."""
        outputs = self.kernel.results(self.inputs[copy], self.outputs[copy])
        np.savez(file, allow_pickle=False, **{str(i): output for i, output in enumerate(outputs)})
        return {"hashes": [[array_hash(a) for a in given] for given in self.inputs]}

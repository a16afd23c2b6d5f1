"""Kernels in a process of their own, which launches them when it is told to, and this process's clock beside it."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baseline.elements import Array
from baseline.mlx_ops import bytes_touched
from harness.build import OpLibrary
from harness.conversation import Conversation
from harness.rotation import rotations
from harness.sandbox import fetch
from harness.verify import output_arrays


@dataclass(frozen=True)
class Repetition:
    """Seconds of some work, on this process's clock and, as it says, on that of the process that did it."""

    seconds: float
    own_seconds: float


class Contestant(Conversation):
    """The parent's side of `harness.contest_job`: one arm or several."""

    def __init__(self, arms: Mapping[str, OpLibrary], inputs: Path, folder: Path, timeout_s: float) -> None:
        """inputs: the file of what all copies begin with, at the contract's bench shape. See `Conversation`."""
        library = next(iter(arms.values()))
        self.copies = rotations(bytes_touched(library.contract, library.contract.bench[0]))
        super().__init__(_job(arms, inputs, self.copies), tuple(arms), folder, timeout_s)

    def prepare(self, arm: str, activations: Mapping[str, Array]) -> None:
        """Makes an arm's next launches ready, one for each of `activations`: [launches, ...] by name."""
        file = self.scratch / "activations.npz"
        arrays: dict[str, Any] = dict(activations)
        np.savez(file, allow_pickle=False, **arrays)
        self.ask("prepare", arm=arm, file=str(file))

    def run(self, arm: str) -> Repetition:
        """Launches what was prepared."""
        started = time.perf_counter()
        answer = self.ask("run", arm=arm)
        return Repetition(time.perf_counter() - started, number(answer.get("seconds")))

    def collect(self, arm: str, back: int, file: Path) -> list[str]:
        """Writes the outputs of the launch that was so many before the last one into `file`; the hashes of its inputs.
        No more than `copies` are kept."""
        made = self.scratch / file.name
        hashes = self.ask("collect", arm=arm, back=back, file=str(made)).get("hashes")
        fetch(made, file)
        return list(hashes) if isinstance(hashes, list) else []


def _job(arms: Mapping[str, OpLibrary], inputs: Path, copies: int) -> dict[str, Any]:
    library = next(iter(arms.values()))
    contract = library.contract
    calls = {name: arm.call(contract.bench[0]) for name, arm in arms.items()}
    return {
        "kind": "contest",
        "device": library.backend.device,
        "inputs": str(inputs.resolve()),
        "input_order": [tensor.name for tensor in contract.inputs],
        "outputs": output_arrays(contract, contract.bench[0]),
        "copies": copies,
        "arms": calls,
        "calls": list(calls.values()),
    }


def number(value: Any) -> float:
    """What a child says that should be a number; 0 for what is none, or is infinite."""
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else 0.0

"""Kernels in a process of their own, which launches them when it is told to, and this process's clock beside it."""

import json
import os
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from baseline.elements import Array
from baseline.mlx_ops import bytes_touched
from harness.build import OpLibrary
from harness.rotation import rotations
from harness.sandbox import (
    ChildResult,
    ChildStatus,
    child_result,
    end_child,
    fetch,
    remove_scratch,
    scratch_folder,
    start_child,
)
from harness.verify import output_arrays

KIND = "contest"


class Ended(Exception):
    """A contestant's process has ended, or did not answer in time; `result` says how."""

    def __init__(self, arms: tuple[str, ...], result: ChildResult) -> None:
        super().__init__(f"{', '.join(arms)}: {result.reason}")
        self.arms, self.result = arms, result


@dataclass(frozen=True)
class Repetition:
    """Seconds of some launches together, on this process's clock and, as it says, on the contestant's."""

    seconds: float
    own_seconds: float


class Contestant:
    """The parent's side of `harness.contest_job`: one arm or several in a process of their own. A context manager:
    leaving it leaves no process."""

    def __init__(self, arms: Mapping[str, OpLibrary], inputs: Path, folder: Path, timeout_s: float) -> None:
        """Starts the process in `folder`; `ready` waits for it.

        inputs: the file of what all copies begin with, at the contract's bench shape. timeout_s: for each answer.
        """
        self.arms, self.folder, self.timeout_s = tuple(arms), folder, timeout_s
        library = next(iter(arms.values()))
        self.copies = rotations(bytes_touched(library.contract, library.contract.bench[0]))
        self._exchange = scratch_folder(KIND, folder)  # all other folders are closed to the process
        self._started = time.perf_counter()
        self._process = start_child(_job(arms, inputs, self.copies), folder, timeout_s, talk=True)
        self._number, self._unread = 0, b""

    def ready(self) -> None:
        """Waits until the kernels are loaded. Raises `Ended`, as all that follow, when the process does not live."""
        self._answer()

    def prepare(self, arm: str, activations: Mapping[str, Array]) -> None:
        """Makes an arm's next launches ready, one for each of `activations`: [launches, ...] by name."""
        file = self._exchange / "activations.npz"
        arrays: dict[str, Any] = dict(activations)
        np.savez(file, allow_pickle=False, **arrays)
        self._ask("prepare", arm=arm, file=str(file))

    def run(self, arm: str) -> Repetition:
        """Launches what was prepared."""
        started = time.perf_counter()
        answer = self._ask("run", arm=arm)
        return Repetition(time.perf_counter() - started, _number(answer.get("seconds")))

    def collect(self, arm: str, back: int, file: Path) -> list[str]:
        """Writes the outputs of the launch that was so many before the last one into `file`; the hashes of its inputs.
        No more than `copies` are kept."""
        made = self._exchange / file.name
        hashes = self._ask("collect", arm=arm, back=back, file=str(made)).get("hashes")
        fetch(made, file)
        return list(hashes) if isinstance(hashes, list) else []

    def _ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        line = json.dumps({"do": what, "with": arguments, "number": self._number}) + "\n"
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), line.encode())
        except BrokenPipeError:
            raise self._end(0.5) from None
        answer = self._answer()
        if answer.get("number") != self._number:
            raise Ended(self.arms, ChildResult(ChildStatus.ERROR, 0.0, stderr="answered what was not asked"))
        return answer

    def _answer(self) -> dict[str, Any]:
        """The next line of the process."""
        assert self._process.stdout is not None
        pipe, deadline = self._process.stdout.fileno(), time.perf_counter() + self.timeout_s
        while b"\n" not in self._unread:
            left = max(deadline - time.perf_counter(), 0)
            if not select.select([pipe], [], [], left)[0]:
                raise self._end(0)
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise self._end(1)
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        return _object(line)

    def _end(self, patience_s: float) -> Ended:
        """Ends the process if it has not ended, and says how it did."""
        status = end_child(self._process, patience_s)
        return Ended(self.arms, child_result(KIND, self.folder, status, time.perf_counter() - self._started))

    def close(self) -> None:
        """Leaves no process."""
        end_child(self._process, 0)
        remove_scratch(KIND, self.folder)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _job(arms: Mapping[str, OpLibrary], inputs: Path, copies: int) -> dict[str, Any]:
    library = next(iter(arms.values()))
    contract = library.contract
    calls = {name: arm.call(contract.bench[0]) for name, arm in arms.items()}
    return {
        "kind": KIND,
        "device": library.backend.device,
        "inputs": str(inputs.resolve()),
        "input_order": [tensor.name for tensor in contract.inputs],
        "outputs": output_arrays(contract, contract.bench[0]),
        "copies": copies,
        "arms": calls,
        "calls": list(calls.values()),
    }


def _object(line: bytes) -> dict[str, Any]:
    """What a line says; {} for what is no answer: a contestant is not to be trusted."""
    try:
        answer = json.loads(line)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

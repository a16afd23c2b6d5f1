"""A kernel in a process of its own, which launches it when it is told to, and this process's clock beside it."""

import json
import os
import select
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

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

    def __init__(self, name: str, result: ChildResult) -> None:
        super().__init__(f"{name}: {result.reason}")
        self.name, self.result = name, result


@dataclass(frozen=True)
class Repetition:
    """Seconds of some launches together, on this process's clock and, as it says, on the contestant's."""

    seconds: float
    own_seconds: float


class Contestant:
    """The parent's side of `harness.contest_job`. A context manager: leaving it leaves no process."""

    def __init__(self, name: str, library: OpLibrary, inputs: Path, folder: Path, timeout_s: float) -> None:
        """Starts the process in `folder`; `ready` waits for it.

        inputs: the file of what all copies begin with, at the contract's bench shape. timeout_s: for each answer.
        """
        self.name, self.folder, self.timeout_s = name, folder, timeout_s
        self.copies = rotations(bytes_touched(library.contract, library.contract.bench[0]))
        job = _job(library, inputs, self.copies)
        self._exchange = scratch_folder(KIND, folder)  # all other folders are closed to the process
        self._launched = 0
        self._started = time.perf_counter()
        self._process = start_child({**job, "kind": KIND}, folder, timeout_s, talk=True)
        self._number, self._unread = 0, b""

    def ready(self) -> None:
        """Waits until the kernel is loaded. Raises `Ended`, as all that follow, when the process does not live."""
        self._answer()

    def run(self, launches: int) -> Repetition:
        """Launches the kernel so many times."""
        self._launched += launches
        started = time.perf_counter()
        answer = self._ask("run", launches=launches)
        return Repetition(time.perf_counter() - started, _number(answer.get("seconds")))

    @property
    def last_copy(self) -> int:
        """Which of its copies the last launch was on: they come in turn."""
        return (self._launched - 1) % self.copies

    def refresh(self, file: Path) -> None:
        """Replaces activations, in their places."""
        self._ask("refresh", file=shutil.copy(file, self._exchange))

    def poison(self) -> None:
        """Makes every output element what no kernel writes."""
        self._ask("poison")

    def collect(self, copy: int, file: Path) -> list[list[str]]:
        """Writes the outputs of a copy into `file`; the hashes of all inputs, by copy."""
        made = self._exchange / file.name
        hashes: list[list[str]] = self._ask("collect", copy=copy, file=str(made))["hashes"]
        fetch(made, file)
        return hashes

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
            raise Ended(self.name, ChildResult(ChildStatus.ERROR, 0.0, stderr="answered what was not asked"))
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
        return Ended(self.name, child_result(KIND, self.folder, status, time.perf_counter() - self._started))

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


def _job(library: OpLibrary, inputs: Path, copies: int) -> dict[str, Any]:
    contract = library.contract
    return {
        "device": library.backend.device,
        "inputs": str(inputs.resolve()),
        "input_order": [tensor.name for tensor in contract.inputs],
        "outputs": output_arrays(contract, contract.bench[0]),
        "copies": copies,
        "call": library.call(contract.bench[0]),
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

"""The parent's side of a child that does what it is told, command by command, until it is ended.

The child's side is `harness.listening`.
"""

import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.costs import Part, spent_on, spent_timed
from harness.sandbox import (
    ChildResult,
    ChildStatus,
    child_result,
    end_child,
    fetch_all,
    remove_scratch,
    scratch_folder,
    start_child,
)

LINE_BYTES = 1 << 20  # of an answer: the longest holds a few hashes
UNASKED = "answered what was not asked"
LOOK_S = 1e-5  # between two looks at whether a child stands yet


class Ended(Exception):
    """A child has ended, or did not answer in time; `result` says how. `who`: the arms that ran in it."""

    def __init__(self, who: tuple[str, ...], result: ChildResult) -> None:
        super().__init__(f"{', '.join(who)}: {result.reason}")
        self.who, self.result = who, result


class Conversation:
    """A child that was started with a job, and answers. A context manager: leaving it leaves no process."""

    def __init__(
        self,
        job: Mapping[str, Any],
        who: tuple[str, ...],
        folder: Path,
        timeout_s: float,
        descriptors: Sequence[int] = (),
        native: bool = False,
    ) -> None:
        """Starts the child in `folder`; `ready` waits for it. `timeout_s` is for each answer; the child inherits the
        `descriptors`. native: its code may do as it likes, so it stands whenever nothing is asked of it: it neither
        works ahead nor takes time from another that is measured."""
        self.kind, self.who, self.folder, self.timeout_s = str(job["kind"]), who, folder, timeout_s
        self.native = native
        self._started = time.perf_counter()
        with spent_on(Part.STARTING):
            self._process = start_child(job, folder, timeout_s, talk=True, descriptors=descriptors)
        self._number, self._unread, self._stands = 0, b"", False

    @property
    def scratch(self) -> Path:
        """The child's scratch folder: all others are closed to it."""
        return scratch_folder(self.kind, self.folder)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @spent_on(Part.STARTING)
    def ready(self) -> None:
        """Waits until the candidate's code is loaded. Raises `Ended`, as all that follow, when the child has ended."""
        self._answer()
        if self.native:
            self.stop()
            self.stand()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Has the child do something, and waits for what it says."""
        return self._exchange(what, arguments)[0]

    def clocked(self, what: str, **arguments: Any) -> tuple[dict[str, Any], float]:
        """As `ask`, with the seconds that passed on this process's clock until a child of native code was stopped: a
        timed run."""
        answer, seconds = self._exchange(what, arguments)
        spent_timed(seconds)
        return answer, seconds

    def _exchange(self, what: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        self._number += 1
        line = json.dumps({"do": what, "with": arguments, "number": self._number}, allow_nan=False) + "\n"
        started = time.perf_counter()
        self._tell(line.encode())
        if self._stands:
            self._signal(signal.SIGCONT)
            self._stands = False
        answer = self._answer()
        if self.native:
            self.stop()
        seconds = time.perf_counter() - started
        if answer.get("number") != self._number:
            raise self._unasked()
        if self.native:
            self.stand()
        return answer, seconds

    def _tell(self, line: bytes) -> None:
        """Sends a line, shorter than what a pipe takes at once. A child that answers without listening fills it up."""
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        if not select.select([], [pipe], [], self.timeout_s)[1]:
            raise self._end(0)
        try:
            os.write(pipe, line)
        except BrokenPipeError:
            raise self._end(0.5) from None

    def _unasked(self) -> Ended:
        return Ended(self.who, ChildResult(ChildStatus.ERROR, 0.0, stderr=UNASKED))

    def stop(self) -> None:
        """Stops the child, until it is asked something: its threads that run are interrupted at once, on all cores, and
        no other one goes on. `stand` waits until all have taken notice, which takes those long that get no core."""
        self._signal(signal.SIGSTOP)

    def stand(self) -> None:
        """Waits until a child that was stopped stands.

        It cannot wake itself: who stands makes no call, and seccomp forbids the timers that would send it a signal.
        Without seccomp one that always wakes itself ends with `Ended`; one that does so now and then is not seen.
        """
        deadline = time.perf_counter() + self.timeout_s
        while True:
            found, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
            if found:
                break
            if time.perf_counter() > deadline:
                raise Ended(self.who, ChildResult(ChildStatus.ERROR, self.timeout_s, stderr="could not be stopped"))
            time.sleep(LOOK_S)
        self._stands = os.WIFSTOPPED(status)
        if not self._stands:  # it has ended, which nobody can ask for a second time
            self._process.returncode = os.waitstatus_to_exitcode(status)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it has just ended
            os.killpg(self.pid, number)

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
            if len(self._unread) > LINE_BYTES:
                raise self._unasked()
        line, self._unread = self._unread.split(b"\n", 1)
        return _object(line)

    def _end(self, patience_s: float) -> Ended:
        """Ends the process if it has not ended, and says how it did."""
        status = end_child(self._process, patience_s)
        seconds = time.perf_counter() - self._started
        return Ended(self.who, child_result(self.kind, self.folder, status, seconds, self._process.begun))

    def fetch(self) -> None:
        """Brings the files that the job names out of the scratch folder, those that are there."""
        fetch_all(self.kind, self.folder)

    @spent_on(Part.STARTING)
    def close(self) -> None:
        """Leaves no process."""
        end_child(self._process, 0)
        remove_scratch(self.kind, self.folder)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _object(line: bytes) -> dict[str, Any]:
    """What a line says; {} for what is no answer: a contestant is not to be trusted."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}

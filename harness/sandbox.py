"""Runs a candidate's code in a process of its own, and brings back what happened as data.

Covered: the wall clock (the whole process group is killed), crashes, the parent's environment (an API key in it is
not passed on), core files. Not covered: memory and file-size limits, the network, and files outside the
candidate's folder.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import harness

PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV")
# What a compiler may need to find itself, its headers and its libraries.
COMPILER = ("CXX", "SDKROOT", "DEVELOPER_DIR", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH")
TAIL_BYTES = 4000
FREE_BYTES = 1 << 20  # with less than this a child's failure is the disk's


class ChildStatus(StrEnum):
    """How a child process ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    CRASHED = "crashed"  # killed by a signal
    ERROR = "error"  # exited with a status other than 0, or without a result


@dataclass(frozen=True)
class ChildResult:
    """The outcome of one child; `payload` is what its job wrote, {} unless the status is OK."""

    status: ChildStatus
    seconds: float
    signal: str = ""
    stderr: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """One line: what ended the child."""
        if self.status is ChildStatus.TIMEOUT:
            return f"did not end within {self.seconds:.0f} s"
        if self.status is ChildStatus.CRASHED:
            return f"crashed with {self.signal}"
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "ended without a result"


def environment() -> dict[str, str]:
    """The child's whole environment: no variable of ours that it does not need."""
    passed_on = {name: os.environ[name] for name in (*PASSED_ON, *COMPILER) if name in os.environ}
    return {**passed_on, "PYTHONPATH": str(Path(harness.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}


def start_child(
    job: Mapping[str, Any], folder: Path, timeout_s: float, talk: bool = False
) -> "subprocess.Popen[bytes]":
    """Starts `job` (see `harness.child`) in `folder`, in a process group of its own.

    The job, its result and its log are `<kind>.job.json`, `<kind>.result.json` and `<kind>.log` there. With `talk` its
    standard input and output are pipes. OSError when the folder cannot be written.
    """
    kind = job["kind"]
    result, marker = _files(folder, kind)
    for stale in (result, marker):
        stale.unlink(missing_ok=True)
    job_file = folder / f"{kind}.job.json"
    paths = {"result": str(result.resolve()), "started": str(marker.resolve())}
    job_file.write_text(json.dumps({**job, **paths, "timeout_s": timeout_s}, indent=1))
    with (folder / f"{kind}.log").open("wb") as log:
        # -P: the candidate's folder is the working directory and must not shadow a module.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.child", str(job_file.resolve())],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else log,
            stderr=log,
            start_new_session=True,
        )


def run_child(job: Mapping[str, Any], folder: Path, timeout_s: float) -> ChildResult:
    """Runs `job` in `folder` for at most `timeout_s` seconds of wall time (see `start_child`).

    Nothing that the candidate does raises here; RuntimeError when the child failed before any of the candidate's code
    ran. On KeyboardInterrupt the child is killed first.
    """
    started = time.perf_counter()
    status = end_child(start_child(job, folder, timeout_s), timeout_s)
    return child_result(job["kind"], folder, status, time.perf_counter() - started)


def child_result(kind: str, folder: Path, status: int | None, seconds: float) -> ChildResult:
    """What became of a child that ended with `status` (None: in no time). Raises as `run_child`."""
    result, marker = _files(folder, kind)
    log_tail = _tail(folder / f"{kind}.log")
    if status is None:
        return ChildResult(ChildStatus.TIMEOUT, seconds, stderr=log_tail)
    if status < 0:
        return ChildResult(ChildStatus.CRASHED, seconds, signal=_signal_name(-status), stderr=log_tail)
    if status != 0 and shutil.disk_usage(folder).free < FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if not marker.exists():
        raise RuntimeError(f"a {kind} process failed before it ran a candidate:\n{log_tail}")
    payload = _payload(result) if status == 0 else None
    if payload is None:
        return ChildResult(ChildStatus.ERROR, seconds, stderr=log_tail)
    return ChildResult(ChildStatus.OK, seconds, stderr=log_tail, payload=payload)


def _files(folder: Path, kind: str) -> tuple[Path, Path]:
    """The result, and what marks that the candidate's code runs."""
    return folder / f"{kind}.result.json", folder / f"{kind}.started"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return log.read(TAIL_BYTES).decode(errors="replace")


def end_child(child: "subprocess.Popen[bytes]", timeout_s: float) -> int | None:
    """The exit status, None after a timeout. Whatever happens, no process of the group is left."""
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # The group outlives its leader when the candidate forked.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _payload(path: Path) -> dict[str, Any] | None:
    try:
        payload = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return payload if isinstance(payload, dict) else None

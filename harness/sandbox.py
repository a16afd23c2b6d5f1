"""Runs a candidate's code in a process of its own, and brings back what happened as data.

Every job has a process, a process group and a scratch folder of its own, where alone it can write; what it may do
beside that is in `harness.isolation`, with what is not covered. The scratch folder is gone when the child is; the
files that a job names as its `outputs` and `answers` are moved out of it.
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
from harness import isolation, macos
from harness.isolation import Access

PASSED_ON = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV")
# What a compiler may need to find itself, its headers and its libraries.
COMPILER = ("CXX", "SDKROOT", "DEVELOPER_DIR", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH")
TAIL_BYTES = 4000
FREE_BYTES = 1 << 20  # with less than this a child's failure is the disk's
FETCHED = ("outputs", "answers")  # files of a job that the child writes and the parent reads
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")


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
    limits: isolation.Limits | None = None

    @property
    def reason(self) -> str:
        """One line: what ended the child."""
        if self.status is ChildStatus.TIMEOUT:
            return f"did not end within {self.seconds:.0f} s"
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "ended without a result"
        if self.limits and any(sign in last for sign in OUT_OF_MEMORY):
            return f"needed more than {self.limits.memory_bytes >> 20} MB of memory"
        if self.status is ChildStatus.CRASHED:
            return self._of_signal()
        return last

    def _of_signal(self) -> str:
        if self.signal == "SIGSYS":
            return "made a forbidden system call"
        if self.limits and self.signal == "SIGXCPU":
            return f"used more than {self.limits.cpu_s} s of CPU time"
        if self.limits and self.signal == "SIGXFSZ":
            return f"wrote a file of more than {self.limits.file_bytes >> 20} MB"
        return f"crashed with {self.signal}"


def environment(scratch: Path | None = None) -> dict[str, str]:
    """The child's whole environment: no variable of ours that it does not need. Its home is its scratch folder."""
    passed_on = {name: os.environ[name] for name in (*PASSED_ON, *COMPILER) if name in os.environ}
    folders = dict.fromkeys(("HOME", "TMPDIR"), str(scratch)) if scratch else {}
    ours = {"PYTHONPATH": str(Path(harness.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**passed_on, **folders, **ours}


def run_child(job: Mapping[str, Any], folder: Path, timeout_s: float) -> ChildResult:
    """Runs `job` (see `harness.child`), for at most `timeout_s` seconds of wall time.

    The job and its log are `<kind>.job.json` and `<kind>.log` in `folder`. Nothing that the candidate does raises here;
    OSError when the folder cannot be written, RuntimeError when the child failed before any of the candidate's code
    ran. On KeyboardInterrupt the child is killed first.
    """
    scratch = scratch_folder(job, folder)
    for name in FETCHED:
        if name in job:
            Path(job[name]).unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        status = _wait(start_child(job, folder, timeout_s), timeout_s)
        return _result(job, folder, status, time.perf_counter() - started, timeout_s)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def scratch_folder(job: Mapping[str, Any], folder: Path) -> Path:
    """Where alone the child of `job` can write: nothing that the parent trusts lies there."""
    return folder.resolve() / f"{job['kind']}.scratch"


def start_child(
    job: Mapping[str, Any], folder: Path, timeout_s: float, talk: bool = False
) -> "subprocess.Popen[bytes]":
    """Starts the child of `job` in a new scratch folder and a new process group, and does not wait for it.

    `talk`: its standard input and output are pipes; else it has no input, and both outputs are its log. The caller ends
    it, with `end_child`, after `timeout_s` seconds. OSError when the folder cannot be written.
    """
    scratch = scratch_folder(job, folder)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    job_file = folder.resolve() / f"{job['kind']}.job.json"
    whole = _whole(job, scratch, job_file, timeout_s)
    job_file.write_text(json.dumps(whole, indent=1))
    # -P: the candidate's folder is the working directory and must not shadow a module.
    command = [sys.executable, "-P", "-m", "harness.confined", str(job_file)]
    with (folder / f"{job['kind']}.log").open("wb") as log:
        return subprocess.Popen(
            macos.confined(command, Access.from_json(whole["access"]), scratch),
            cwd=scratch,
            env=environment(scratch),
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else log,
            stderr=log,
            start_new_session=True,
        )


def end_child(child: "subprocess.Popen[bytes]") -> None:
    """Kills a child and its whole group, which outlives its leader when the candidate forked; does not fail."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _whole(job: Mapping[str, Any], scratch: Path, job_file: Path, timeout_s: float) -> dict[str, Any]:
    """The job as the child gets it: what it writes lies in its scratch folder, and what it may do is said."""
    files = {name: str(scratch / Path(job[name]).name) for name in FETCHED if name in job}
    files |= {"result": str(scratch / "result.json"), "started": str(scratch / "started")}
    access = Access((*isolation.surroundings(), str(job_file), *reads(job)), (str(scratch),))
    allowed = isolation.to_job(access, limits(job, timeout_s), processes(job), uring(job))
    return {**job, **files, **allowed, "parent": os.getpid(), "timeout_s": timeout_s}


def limits(job: Mapping[str, Any], timeout_s: float) -> isolation.Limits:
    """What the child of `job` may use. An engine maps the files of its model."""
    files = Path(job["packed"]).rglob("*") if "packed" in job else ()
    return isolation.limits(timeout_s, sum(file.stat().st_size for file in files if file.is_file()))


def reads(job: Mapping[str, Any]) -> list[str]:
    """What the child of `job` reads beside what every child reads: inputs, libraries, the model, the contracts."""
    calls = [*job.get("calls", ()), *(arm for arm in job.get("arms", {}).values() if "backend" in arm)]
    named = [job.get(name) for name in ("inputs", "packed", "kernels", "cache")]
    named += [call.get("library") for call in calls]
    named += [str(Path(call["path"]).parents[1]) for call in calls if "path" in call]
    return [*dict.fromkeys(path for path in named if path)]


def processes(job: Mapping[str, Any]) -> bool:
    """Whether the child may start processes: the emulator asks addr2line for the lines of what it found."""
    return any(call.get("backend") == "emulated" for call in job.get("calls", ()))


def uring(job: Mapping[str, Any]) -> bool:
    """Whether the child may use io_uring, whose rings each thread makes at its first read."""
    policies = [arm["io"] for arm in job.get("arms", {}).values() if "io" in arm]
    return any(io.get("method") == "uring" or io.get("cache") == "direct" for io in policies)


def _result(
    job: Mapping[str, Any], folder: Path, status: int | None, seconds: float, timeout_s: float
) -> ChildResult:
    """What became of a child that has ended."""
    kind, scratch = job["kind"], scratch_folder(job, folder)
    log_tail, given = _tail(folder / f"{kind}.log"), limits(job, timeout_s)
    if status is None:
        return ChildResult(ChildStatus.TIMEOUT, seconds, stderr=log_tail, limits=given)
    if status != 0 and shutil.disk_usage(folder).free < FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if status >= 0 and not (scratch / "started").exists():
        raise RuntimeError(f"a {kind} process failed before it ran a candidate:\n{log_tail}")
    if status < 0:
        return ChildResult(ChildStatus.CRASHED, seconds, _signal_name(-status), log_tail, limits=given)
    payload = _payload(scratch / "result.json") if status == 0 else None
    if payload is None:
        return ChildResult(ChildStatus.ERROR, seconds, stderr=log_tail, limits=given)
    for name in FETCHED:
        if name in job:
            _fetch(scratch / Path(job[name]).name, Path(job[name]))
    return ChildResult(ChildStatus.OK, seconds, stderr=log_tail, payload=payload, limits=given)


def _fetch(made: Path, wanted: Path) -> None:
    """Moves a file out of the scratch folder: a regular one, which no link or pipe takes the place of."""
    if made.is_file() and not made.is_symlink():
        made.replace(wanted)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return log.read(TAIL_BYTES).decode(errors="replace")


def _wait(child: "subprocess.Popen[bytes]", timeout_s: float) -> int | None:
    """The exit status, None after a timeout. Whatever happens, no process of the group is left."""
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_child(child)


def _payload(path: Path) -> dict[str, Any] | None:
    if path.is_symlink() or not path.is_file():
        return None
    try:
        payload = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return payload if isinstance(payload, dict) else None

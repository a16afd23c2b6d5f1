"""Runs a candidate's code in a process of its own, and brings back what happened as data.

Every job has a process, a process group and a scratch folder of its own, where alone it can write; what it may do
beside that is in `harness.isolation`, with what is not covered. The scratch folder is gone when the child is; the
files that a job names as its `outputs` and `answers` are moved out of it.
"""

import errno
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import harness
from baseline import confinement, macos, nvidia, seccomp
from baseline.confinement import Access, Limits
from baseline.targets import compiler
from harness import isolation
from harness.costs import Part, spent_on

# Fresh memory holds what no kernel may count on (glibc, macOS). Not where time is measured.
UNCLEAN = {"MALLOC_PERTURB_": "165", "MallocPreScribble": "1"}
# A new session has no terminal. On macOS, where no child is told that its parent has died, one of the same session is
# still woken with SIGHUP if it stands then, as POSIX has it of orphaned groups; sandbox-exec keeps it off the terminal.
OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.platform == "darwin" else {"start_new_session": True}
TAIL_BYTES = 4000
FREE_BYTES = 1 << 20  # with less than this a child's failure is the disk's
# Files of a job that the child writes and the parent reads, or several of them by name.
FETCHED = ("outputs", "answers", "plain", "watermarked")
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
    limits: Limits | None = None

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
    passed_on = {name: os.environ[name] for name in (*compiler.PASSED_ON, "VIRTUAL_ENV") if name in os.environ}
    folders = dict.fromkeys(("HOME", "TMPDIR"), str(scratch)) if scratch else {}
    ours = {"PYTHONPATH": str(Path(harness.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**passed_on, **folders, **ours}


def nvidia_settings(scratch: Path) -> dict[str, str]:
    """The variables of a child beside the others, where MLX computes on a GPU of NVIDIA's."""
    if not nvidia.in_use():
        return {}
    passed_on = {name: os.environ[name] for name in nvidia.PASSED_ON if name in os.environ}
    return passed_on | nvidia.SETTINGS | {nvidia.COMPILED: str(nvidia.compiled_in(scratch))}


class Child(subprocess.Popen[bytes]):
    """A child's process. It says through a pipe that a candidate's code is let in: no such code takes that back."""

    def __init__(self, command: Sequence[str], told: int, **options: Any) -> None:
        """`told`: the pipe's end to read, which is closed here; `options`: those of Popen."""
        self._told, self.begun = told, False
        super().__init__(command, **options)

    def await_start(self, timeout_s: float) -> None:
        """Waits until a candidate's code is let in, or the process has ended, for at most so long."""
        select.select([self._told], [], [], timeout_s)

    def hear(self) -> None:
        """Sets `begun` once the process has ended: whether a candidate's code ran in it."""
        if self._told >= 0:
            self.begun = bool(os.read(self._told, 1))
            os.close(self._told)
            self._told = -1


def run_child(job: Mapping[str, Any], folder: Path, timeout_s: float) -> ChildResult:
    """Runs `job` (see `harness.child`), for at most `timeout_s` seconds of wall time.

    Nothing that the candidate does raises here; OSError when the folder cannot be written, RuntimeError when the child
    failed before any of the candidate's code ran. On KeyboardInterrupt the child is killed first.
    """
    started = time.perf_counter()
    try:
        with spent_on(Part.STARTING):
            child = start_child(job, folder, timeout_s)
            child.await_start(timeout_s)
        with spent_on(Part.RUNNING):
            status = end_child(child, timeout_s)
        return child_result(job["kind"], folder, status, time.perf_counter() - started, child.begun)
    finally:
        remove_scratch(job["kind"], folder)


def scratch_folder(kind: str, folder: Path) -> Path:
    """Where alone the child of a job of `kind` in `folder` can write: nothing that the parent trusts lies there."""
    return folder.resolve() / f"{kind}.scratch"


def remove_scratch(kind: str, folder: Path) -> None:
    """Removes the scratch folder of a child that has ended; does not fail."""
    shutil.rmtree(scratch_folder(kind, folder), ignore_errors=True)


def start_child(
    job: Mapping[str, Any], folder: Path, timeout_s: float, talk: bool = False, descriptors: Sequence[int] = ()
) -> Child:
    """Starts the child of `job` in a new scratch folder and a new process group, and does not wait for it.

    The job and its log are `<kind>.job.json` and `<kind>.log` in `folder`. `talk`: standard input and output are pipes;
    else there is no input, and both outputs are the log. It inherits `descriptors`. The caller ends it, with
    `end_child`, and removes the scratch folder. OSError when the folder cannot be written.
    """
    kind, job_file = job["kind"], _job_file(job["kind"], folder)
    remove_scratch(kind, folder)
    scratch = scratch_folder(kind, folder)
    scratch.mkdir(parents=True)
    if "jit" in job:
        shutil.copytree(job["jit"], scratch, dirs_exist_ok=True)
    for kept in compiled(job):
        lay_out(Path(kept), nvidia.compiled_in(scratch))
    told, begun = os.pipe()
    whole = _whole(job, scratch, job_file, timeout_s) | {"begun": begun}
    for stale in whole["fetched"].values():
        Path(stale).unlink(missing_ok=True)
    job_file.write_text(json.dumps(whole, indent=1, allow_nan=False))
    # -P: the candidate's folder is the working directory and must not shadow a module.
    command = [sys.executable, "-P", "-m", "harness.confined", str(job_file)]
    with os.fdopen(begun, "wb"), (folder / f"{kind}.log").open("wb") as log:
        return Child(
            macos.confined(command, Access.from_json(whole["access"]), scratch),
            told,
            cwd=scratch,
            env=environment(scratch) | (UNCLEAN if kind == "check" else {}) | nvidia_settings(scratch),
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else log,
            stderr=log,
            pass_fds=(begun, *descriptors),
            **OWN_GROUP,
        )


def end_child(child: Child, timeout_s: float) -> int | None:
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
        child.hear()


def child_result(kind: str, folder: Path, status: int | None, seconds: float, begun: bool) -> ChildResult:
    """What became of a child that ended with `status` (None: in no time). `begun`: a candidate's code ran in it. Raises
    as `run_child`."""
    job, scratch = json.loads(_job_file(kind, folder).read_text()), scratch_folder(kind, folder)
    log_tail, limits = _tail(folder / f"{kind}.log"), Limits.from_json(job["limits"])
    if status is None:
        return ChildResult(ChildStatus.TIMEOUT, seconds, stderr=log_tail, limits=limits)
    if status < 0:
        return ChildResult(ChildStatus.CRASHED, seconds, _signal_name(-status), log_tail, limits=limits)
    if status != 0 and shutil.disk_usage(folder).free < FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if not begun:
        raise RuntimeError(f"a {kind} process failed before it ran a candidate:\n{log_tail}")
    payload = _payload(scratch / "result.json") if status == 0 else None
    if payload is None:
        return ChildResult(ChildStatus.ERROR, seconds, stderr=log_tail, limits=limits)
    fetch_all(kind, folder)
    return ChildResult(ChildStatus.OK, seconds, stderr=log_tail, payload=payload, limits=limits)


def _job_file(kind: str, folder: Path) -> Path:
    return folder.resolve() / f"{kind}.job.json"


def _whole(job: Mapping[str, Any], scratch: Path, job_file: Path, timeout_s: float) -> dict[str, Any]:
    """The job as the child gets it: what it writes lies in its scratch folder, and what it may do is said."""
    files, fetched = _moved(job, scratch)
    files["result"] = str(scratch / "result.json")
    read, written = (*isolation.surroundings(), str(job_file), *reads(job)), (str(scratch), *job.get("writes", ()))
    calls = seccomp.URING if uring(job) else ()
    access = Access(read, written)
    if nvidia.in_use():
        access = Access((*read, *nvidia.facts()), (*written, nvidia.NAMES), nvidia.devices())
    if cuda(job):
        calls = (*calls, seccomp.THREADS, seccomp.STACK)
    allowed = confinement.to_job(access, limits(job, timeout_s), calls)
    return {**job, **files, **allowed, "fetched": fetched, "parent": os.getpid(), "timeout_s": timeout_s}


def _moved(job: Mapping[str, Any], scratch: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The job's FETCHED files in the scratch folder; and where each is to be in the end."""
    fetched: dict[str, str] = {}

    def moved(path: str) -> str:
        made = str(scratch / Path(path).name)
        fetched[made] = path
        return made

    given = {name: job[name] for name in FETCHED if isinstance(job.get(name), str | dict)}
    files = {
        name: moved(path) if isinstance(path, str) else {key: moved(one) for key, one in path.items()}
        for name, path in given.items()
    }
    return files, fetched


def limits(job: Mapping[str, Any], timeout_s: float) -> Limits:
    """What the child of `job` may use. An engine maps the files of its model."""
    files = Path(job["packed"]).rglob("*") if "packed" in job else ()
    return isolation.limits(timeout_s, sum(file.stat().st_size for file in files if file.is_file()))


def reads(job: Mapping[str, Any]) -> list[str]:
    """What the child of `job` reads beside what every child reads: inputs, libraries, the model, the contracts."""
    named = [job.get(name) for name in ("inputs", "packed", "kernels")]
    named += [*job.get("libraries", ()), *(call.get("library") for call in _calls(job))]
    for source in _sources(job):
        named += [str(source), str(source.parents[1] / "contract.yaml")]
    return [*dict.fromkeys(path for path in named if path)]


def _sources(job: Mapping[str, Any]) -> list[Path]:
    """The files of the variants that a child reads: those of other candidates stay closed."""
    named = [*_calls(job), *job.get("trusted", {}).values()]
    for arm in job.get("arms", {}).values():
        named += arm.get("choices", {}).values()
    return [Path(choice["path"]) for choice in named if "path" in choice]


def _calls(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*job.get("calls", ()), *([job["call"]] if "call" in job else [])]


def compiled(job: Mapping[str, Any]) -> list[str]:
    """The folders of the compiled kernels that a child needs (`harness.compiled`), the candidate's last."""
    named = [*job.get("compiled", ()), *(call["compiled"] for call in _calls(job) if "compiled" in call)]
    return [*dict.fromkeys(named)]


def lay_out(kept: Path, folder: Path) -> None:
    """Copies what is kept of a kernel for a child to find. What is there already stays: it is another kernel's, whose
    name this one has no right to."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in kept.iterdir():
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def cuda(job: Mapping[str, Any]) -> bool:
    """Whether the child computes on a GPU of NVIDIA's: the only ones that MLX has beside Apple's."""
    return job.get("device") == "gpu" and sys.platform == "linux"


def uring(job: Mapping[str, Any]) -> bool:
    """Whether the child may use io_uring, whose rings each thread makes at its first read."""
    policies = [arm["io"] for arm in job.get("arms", {}).values() if "io" in arm]
    return any(io.get("method") == "uring" or io.get("cache") == "direct" for io in policies)


def fetch_all(kind: str, folder: Path) -> None:
    """Moves the files that the job of a child names out of its scratch folder, those that are there."""
    for made, wanted in json.loads(_job_file(kind, folder).read_text())["fetched"].items():
        fetch(Path(made), Path(wanted))


def fetch(made: Path, wanted: Path) -> None:
    """Moves a file out of the scratch folder. Where there is none, or a link, a pipe or a folder in its place, there is
    no `wanted`: that is looked at after the move, when the child cannot exchange it any more."""
    try:
        made.replace(wanted)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return
    mode = wanted.lstat().st_mode
    if stat.S_ISDIR(mode):
        shutil.rmtree(wanted, ignore_errors=True)
    elif not stat.S_ISREG(mode):
        wanted.unlink()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return log.read(TAIL_BYTES).decode(errors="replace")


def _payload(path: Path) -> dict[str, Any] | None:
    if path.is_symlink() or not path.is_file():
        return None
    try:
        payload = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None

"""What a child that runs a candidate's code may do: the files it may open, what it may use, the calls it may make.

The parent states it in the job, and the child gives everything else up: files and limits before it imports anything
that starts a thread, system calls when all threads are there and before the candidate's library is loaded. On macOS the
parent starts the child under sandbox-exec instead (`harness.macos`).

Not covered: cores, memory bandwidth and disk are shared; names in a folder that can be read can be listed, and any file
can be asked for its size and date. A kernel on the emulator may start the system's programs, one in an engine whose
policy takes io_uring may use that; both stay within the files that are allowed. Without seccomp nothing limits the
number of processes. The memory that counts is private and writable (RLIMIT_DATA), on Linux alone.
"""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import baseline
import harness
from baseline.errors import UsageError
from harness import landlock, seccomp

BEST, REQUIRED = "best", "required"  # the `sandbox` option
ALWAYS = ("process group", "wall time", "CPU time", "file sizes", "environment", "scratch folder")
FILE_BYTES = 2 << 30
OPEN_FILES = 4096  # what mlx-lm sets
MEMORY_SHARE = 0.75  # of the machine's memory
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM = (  # what the loader, the C library, Python and MLX read beside them
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/locale.alias", "/etc/localtime"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)
DEVICES = ("/dev/null",)  # also written


@dataclass(frozen=True)
class Access:
    """Files and folders by absolute path: `read` may be opened for reading, with all below; `write` also changed."""

    read: tuple[str, ...]
    write: tuple[str, ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Access":
        """What a job holds under `access`."""
        return cls(tuple(record["read"]), tuple(record["write"]))


@dataclass(frozen=True)
class Limits:
    """What a process may use: seconds of CPU time over all threads, bytes of memory, bytes of one file."""

    cpu_s: int
    memory_bytes: int
    file_bytes: int = FILE_BYTES

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Limits":
        """What a job holds under `limits`."""
        return cls(**record)


@dataclass(frozen=True)
class Layers:
    """`in_force`: what holds a candidate back on this machine; `missing`: what does not, each with its reason."""

    in_force: tuple[str, ...]
    missing: tuple[str, ...]


@cache
def layers() -> Layers:
    """What this machine has. Nothing is started or given up to find out."""
    if sys.platform == "darwin":
        found = {"sandbox-exec": "" if shutil.which("sandbox-exec") else "sandbox-exec: not on the PATH"}
    else:
        no_landlock = "" if landlock.abi() else "Landlock: it takes Linux 6.2 (candidates have your rights on files)"
        no_seccomp = seccomp.missing()
        found = {
            "memory": "",
            f"files (Landlock {landlock.abi()})": no_landlock,
            "network and system calls (seccomp)": no_seccomp and f"seccomp: {no_seccomp}",
        }
    in_force = [name for name, reason in found.items() if not reason]
    return Layers((*ALWAYS, *in_force), tuple(reason for reason in found.values() if reason))


def require(sandbox: str) -> None:
    """UsageError, naming what is missing, where `sandbox` is "required" and this machine lacks a layer."""
    if sandbox == REQUIRED and layers().missing:
        raise UsageError(f"sandbox=required: {'; '.join(layers().missing)}; sandbox=best runs without")


# ---- the parent states it --------------------------------------------------------------------------


def limits(timeout_s: float, more_bytes: int = 0) -> Limits:
    """Of a child with `timeout_s` seconds of wall time, which may use all cores; `more_bytes` of memory are mapped."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Limits(int(timeout_s * (os.cpu_count() or 1)) + 1, int(MEMORY_SHARE * memory) + more_bytes)


@cache
def surroundings() -> tuple[str, ...]:
    """What every child reads: the system's files, Python's and ours, without what holds an answer."""
    packages = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    given: tuple[str | Path, ...] = (
        *PROGRAMS,
        sys.prefix,
        sys.base_prefix,
        *packages,
        _folder(harness),
        _folder(baseline),
    )
    roots, secret = dict.fromkeys(Path(root).resolve() for root in given), frozenset(_secrets())
    return (*SYSTEM, *(str(path) for root in roots for path in _all_but(root, secret)))


def _folder(package: Any) -> Path:
    return Path(str(package.__file__)).resolve().parent


def _secrets() -> Iterator[Path]:
    """The oracle, compiled too; the recorded answers; the models with their held-out texts."""
    root = _folder(baseline)
    yield from (root / name for name in ("reference.py", "golden", "models"))
    yield from (root / "__pycache__").glob("reference.*")


def _all_but(path: Path, secret: frozenset[Path]) -> Iterator[Path]:
    """The fewest paths that hold all at and below `path` but not what is secret: Landlock allows, it never forbids."""
    if path in secret:
        return
    if not any(hidden.is_relative_to(path) for hidden in secret):
        yield path
        return
    for child in sorted(path.iterdir()):
        yield from _all_but(child, secret)


# ---- the child gives the rest up -------------------------------------------------------------------


def restrict_files(access: Access) -> None:
    """Gives up all other files, where there is Landlock. The first thing that a child does: no thread exists yet."""
    if landlock.abi():
        landlock.restrict(access.read, (*access.write, *DEVICES))


def restrict_use(given: Limits) -> None:
    """Sets the limits: past that of CPU time or of a file the process dies, past that of memory allocations fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
    wanted = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (given.cpu_s, given.cpu_s + 1),
        resource.RLIMIT_FSIZE: (given.file_bytes, given.file_bytes),
        resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES),
    }
    if sys.platform == "linux":
        wanted[resource.RLIMIT_DATA] = (given.memory_bytes, given.memory_bytes)
    for kind, (soft, hard) in wanted.items():
        _, most = resource.getrlimit(kind)
        soft, hard = (value if most == resource.RLIM_INFINITY else min(value, most) for value in (soft, hard))
        resource.setrlimit(kind, (soft, hard))


def restrict_calls(program: str) -> None:
    """Installs a `harness.seccomp.program`, given in hex; nothing where it is empty."""
    if program:
        seccomp.install(bytes.fromhex(program))


def to_job(access: Access, given: Limits, processes: bool, uring: bool) -> dict[str, Any]:
    """The part of a job that says what its child may do."""
    program = b"" if seccomp.missing() else seccomp.program(processes, uring)
    return {"access": asdict(access), "limits": asdict(given), "calls_program": program.hex()}

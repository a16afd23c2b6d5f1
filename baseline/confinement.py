"""What a process gives up before it touches a candidate: files, system calls, memory and time.

Whoever starts it states what it keeps (`to_job`); the process gives everything else up itself, which binds all that it
starts: files and limits before any thread is there, address space and system calls when all threads are.
`baseline.confined` does so for the compiler of a candidate's source, `harness.confined` for what runs its code. What is
not covered is listed in `harness.isolation`. On macOS sandbox-exec keeps the files instead (`baseline.macos`).
"""

import resource
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import baseline
from baseline import landlock, seccomp

FILE_BYTES = 2 << 30
OPEN_FILES = 4096  # what mlx-lm sets
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM = (  # what the loader, the C library, compilers, Python and MLX read beside them
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/locale.alias", "/etc/localtime"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)
DEVICES = ("/dev/null",)  # also written


@dataclass(frozen=True)
class Access:
    """Files and folders by absolute path: `read` may be opened for reading, with all below; `write` also changed;
    `control` are devices, which may be written and asked anything (ioctl)."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    control: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Access":
        """What a job holds under `access`."""
        return cls(*(tuple(record[name]) for name in ("read", "write", "control")))


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


# ---- whoever starts it states it -------------------------------------------------------------------


def to_job(access: Access, given: Limits, allowed: Iterable[str] = ()) -> dict[str, Any]:
    """The part of a job that says what its process keeps; `allowed` are the calls of `seccomp.program`."""
    program = b"" if seccomp.missing() else seccomp.program(tuple(allowed))
    return {"access": asdict(access), "limits": asdict(given), "calls_program": program.hex()}


def readable(folders: Iterable[str | Path]) -> tuple[str, ...]:
    """The system's files, its programs and `folders`, links resolved, without what holds an answer."""
    roots = dict.fromkeys(Path(folder).resolve() for folder in (*PROGRAMS, *folders))
    secret = frozenset(secrets())
    return (*SYSTEM, *(str(path) for root in roots for path in _all_but(root, secret)))


def secrets() -> Iterator[Path]:
    """The oracle, compiled too; the recorded answers; the models with their held-out texts."""
    root = Path(baseline.__file__).resolve().parent
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


# ---- the process gives the rest up -----------------------------------------------------------------


_in_force: list[Access] = []


def in_force() -> bool:
    """Whether this process has given up files, and with it all that it starts."""
    return bool(_in_force)


def restrict_files(access: Access) -> None:
    """Gives up all other files, where there is Landlock. The first thing that a process does: no thread exists yet."""
    if landlock.abi():
        landlock.restrict(access.read, (*access.write, *DEVICES), access.control)
    _in_force.append(access)


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
        _limit(kind, soft, hard)


def restrict_growth(given: Limits) -> None:
    """Lets the address space grow by the memory of `given` alone. Linux, when all threads are there.

    That counts what is neither private nor written, and so no memory to RLIMIT_DATA: shared memory, stacks, /dev/zero,
    page tables. What threads and libraries reserve and hardly use is there before.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + given.memory_bytes
        _limit(resource.RLIMIT_AS, most, most)


def _limit(kind: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(kind)
    soft, hard = (value if most == resource.RLIM_INFINITY else min(value, most) for value in (soft, hard))
    resource.setrlimit(kind, (soft, hard))


def restrict_calls(program: str) -> None:
    """Installs a `seccomp.program`, given in hex; nothing where it is empty."""
    if program:
        seccomp.install(bytes.fromhex(program))

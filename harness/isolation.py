"""How a child that runs a candidate's code is held back: which layers this machine has, and what every child keeps.

The parent states it in the job, and the child gives everything else up (`baseline.confinement`): files and limits
before it imports anything that starts a thread, system calls when all threads are there and before the candidate's
library is loaded. On macOS the parent starts the child under sandbox-exec instead. The same layers hold the compiler of
a candidate's source, which could copy any file that it reads into the library (`baseline.targets.compiler`).

A child that computes on a GPU of NVIDIA's keeps what the driver needs: see `baseline.nvidia`, LET_THROUGH.

Not covered: `nightforge generate` and `golden check`, which run kernels in the user's own process. Cores, memory
bandwidth and disk are shared; names in a folder that can be read can be listed, and any file can be asked for its size
and date. A kernel in an engine whose policy takes io_uring may use that, within the files that are allowed. The
size of a file is limited, the number of files in the scratch folder is not, so that a candidate can fill the disk until
it is removed: seccomp could forbid to make any, if all that a child writes later were there before its candidate is.
Without seccomp nothing limits the number of processes, nor the memory in files without a name (memfd). On
macOS nothing limits memory.
"""

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import baseline
import harness
from baseline import confinement, landlock, macos, nvidia, seccomp
from baseline.confinement import Limits
from baseline.errors import UsageError

BEST, REQUIRED = "best", "required"  # the `sandbox` option
ALWAYS = ("process group", "wall time", "CPU time", "file sizes", "environment", "scratch folder")
MEMORY_SHARE = 0.75  # of the machine's memory


@dataclass(frozen=True)
class Layers:
    """`in_force`: what holds a candidate back on this machine; `missing`: what does not, each with its reason.
    `on_cuda`: where less holds one of that target; nothing where there is no such GPU."""

    in_force: tuple[str, ...]
    missing: tuple[str, ...]
    on_cuda: tuple[str, ...] = ()


@cache
def layers() -> Layers:
    """What this machine has. Nothing is started or given up to find out."""
    if sys.platform == "darwin":
        found = {"sandbox-exec": macos.missing()}
    else:
        no_landlock = "" if landlock.abi() else "Landlock: it takes Linux 6.2 (candidates have your rights on files)"
        no_seccomp = seccomp.missing()
        found = {
            "memory": "",
            f"files (Landlock {landlock.abi()})": no_landlock,
            "network and system calls (seccomp)": no_seccomp and f"seccomp: {no_seccomp}",
        }
    in_force = [name for name, reason in found.items() if not reason]
    missing = tuple(reason for reason in found.values() if reason)
    return Layers((*ALWAYS, *in_force), missing, nvidia.LET_THROUGH if nvidia.devices() else ())


def require(sandbox: str) -> None:
    """UsageError, naming what is missing, where `sandbox` is "required" and this machine lacks a layer."""
    if sandbox == REQUIRED and layers().missing:
        raise UsageError(f"sandbox=required: {'; '.join(layers().missing)}; sandbox=best runs without")


def limits(timeout_s: float, more_bytes: int = 0) -> Limits:
    """Of a child with `timeout_s` seconds of wall time, which may use all cores; `more_bytes` of memory are mapped."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Limits(int(timeout_s * (os.cpu_count() or 1)) + 1, int(MEMORY_SHARE * memory) + more_bytes)


@cache
def surroundings() -> tuple[str, ...]:
    """What every child reads: the system's files, Python's and ours, without what holds an answer."""
    packages = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    ours = (Path(str(package.__file__)).parent for package in (harness, baseline))
    return confinement.readable((sys.prefix, sys.base_prefix, *packages, *ours))

"""The page cache: what state a measurement begins in, and how much of what was read came from it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from baseline.manifest import load_manifest

WARM, COLD, STEADY = "warm", "cold", "steady"
STATES = (WARM, COLD, STEADY)
PIECE = 1 << 20


@dataclass(frozen=True)
class CacheUse:
    """How each decode began, and what it read.

    state: "warm" with all experts read through the page cache, "cold" with all dropped from it, "steady" as the decodes
        before had left it.
    read_bytes: of experts, a token.
    cached: the share of them that did not come from the disk; None where that is not known, or nothing was read.
    """

    state: str
    read_bytes: float
    cached: float | None

    def text(self) -> str:
        """For people."""
        share = "" if self.cached is None else f", {100 * self.cached:.0f} % of it from the page cache"
        return f"{self.state}: {self.read_bytes / 1e6:.2f} MB of experts read a token{share}"


def expert_files(packed: Path) -> list[Path]:
    """The files of a packed model's experts."""
    return [packed / layer.file for layer in load_manifest(packed).layers]


def warm(files: Iterable[Path]) -> None:
    """Reads files through."""
    piece = bytearray(PIECE)
    for path in files:
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(piece):
                pass


def drop(files: Iterable[Path]) -> None:
    """Asks the system to forget files, as far as nobody maps them. Does nothing where it cannot be asked (macOS)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def disk_bytes(pid: int) -> int | None:
    """What a process has had read from disks; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))

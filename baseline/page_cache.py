"""How much of what a process has read came from the page cache."""

import os
from pathlib import Path


def disk_bytes(pid: int | None = None) -> int | None:
    """What a process, by default this one, has had read from disks; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid or os.getpid()}/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def between(before: int | None, after: int | None) -> int | None:
    """The bytes between two `disk_bytes`."""
    return None if before is None or after is None else after - before


def cached_share(read_bytes: float, from_disk: int | None) -> float | None:
    """The share of what was read that did not come from disks; None where that is not known, or nothing was read."""
    if from_disk is None or read_bytes <= 0:
        return None
    return max(0.0, 1 - from_disk / read_bytes)


def share_text(cached: float | None) -> str:
    """For people, behind what was read; '' where it is not known."""
    return "" if cached is None else f", {100 * cached:.0f} % of it from the page cache"

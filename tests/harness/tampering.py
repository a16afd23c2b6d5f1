"""Changes of files that are hard to notice."""

import os
from pathlib import Path


def unnoticed(path: Path) -> None:
    """Changes a byte, but neither the size nor the time."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[21] ^= 1  # of a contract: in its summary
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

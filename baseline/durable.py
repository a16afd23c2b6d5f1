"""Files that a crash leaves either whole, under their own name, or not there at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from baseline.errors import UsageError


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Give a path to write to; on success its content is on the disk and takes `path`'s place in one step."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_checksum(path: Path) -> str:
    """xxh3_64 of a file's content, as 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def code_hash(path: Path) -> str:
    """What names the code in a file: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def require_space(folder: Path, nbytes: int) -> None:
    """Raise UsageError when the disk of `folder`, which need not exist yet, has not `nbytes` free."""
    absolute = folder.absolute()
    disk = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    free = shutil.disk_usage(disk).free
    if nbytes > free:
        raise UsageError(f"{folder} needs {nbytes / 1e9:.2f} GB more, {free / 1e9:.2f} GB are available on its disk")

"""The pages of a file that this process has mapped, and how to drop them from the page cache. Linux alone."""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

PAGE = mmap.PAGESIZE
MOST_LEFT = 0.01  # of the pages: the folios at the ranges' ends are their neighbours' too


class Pages:
    """Ranges of a mapped file, in bytes from its start, whose pages go together. The file may then lose its name."""

    def __init__(self, path: Path, ranges: Iterable[tuple[int, int]]) -> None:
        """RuntimeError, or OSError, where the system does not say what is mapped where."""
        self.ranges = joined(ranges)
        self.mapped = [
            piece for mapping in mappings(path) for wanted in self.ranges for piece in _within(mapping, wanted)
        ]
        if not self.mapped:
            raise RuntimeError("the model's file is not mapped")
        self.file = path.open("rb")
        self.libc = ctypes.CDLL(None, use_errno=True)

    def drop(self) -> None:
        """Drop them from the page cache. RuntimeError when they stay."""
        for address, nbytes in self.mapped:
            self._call("madvise", address, nbytes, mmap.MADV_DONTNEED)  # one that is mapped stays too
        for start, end in self.ranges:
            _forget(self.file, start, end - start)
        cached, pages = self.cached(), sum(nbytes for _, nbytes in self.mapped) // PAGE
        if cached > MOST_LEFT * pages:
            raise RuntimeError(f"{cached} of {pages} pages cannot be dropped from the page cache")

    def cached(self) -> int:
        """The pages that the page cache holds."""
        found = 0
        for address, nbytes in self.mapped:
            vector = (ctypes.c_ubyte * (nbytes // PAGE))()
            self._call("mincore", address, nbytes, vector)
            found += int(np.count_nonzero(np.ctypeslib.as_array(vector) & 1))
        return found

    def _call(self, function: str, address: int, nbytes: int, last: object) -> None:
        if getattr(self.libc, function)(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), last):
            raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def forget(path: Path) -> None:
    """Drop all of a file that is not mapped from the page cache, as far as the system does that.

    What was written at once lies there in folios of up to 2 MiB, and one that a range's end cuts stays when the range
    is dropped. What is read ahead comes in smaller ones.
    """
    with path.open("rb") as file:
        _forget(file, 0, 0)


def _forget(file: BinaryIO, start: int, nbytes: int) -> None:
    if sys.platform == "linux":
        os.fsync(file.fileno())  # a page that is yet to be written stays
        os.posix_fadvise(file.fileno(), start, nbytes, os.POSIX_FADV_DONTNEED)


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def mappings(path: Path) -> Iterator[tuple[int, int, int]]:
    """Where this process has mapped the file: address, offset in the file, bytes."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)  # addresses, rights, offset, device, inode, path
        if len(fields) == 6 and fields[5] == str(path.resolve()):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, int(fields[2], 16), end - start


def _within(mapping: tuple[int, int, int], wanted: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Address and bytes of the whole pages of the range that lie in the mapping."""
    address, offset, nbytes = mapping
    start = -(-max(wanted[0], offset) // PAGE) * PAGE
    end = min(wanted[1], offset + nbytes) // PAGE * PAGE
    if end > start:
        yield address + start - offset, end - start


def bytes_read() -> int:
    """Bytes that this process has had read from disks. OSError where the system does not say."""
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])

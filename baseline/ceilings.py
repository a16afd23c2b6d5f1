"""What the memory and the disk give at the moment, to be measured in turn with what should come near it.

`baseline.probe` says what a machine can do at its best. A shared machine does not always do its best: a kernel is
compared with what a plain reader of the same buffers gets within the same second, a reader of experts with what
direct reads of the same file get.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from baseline import native
from baseline.elements import Array
from baseline.probe import read_buffer

BLOCK_BYTES = 1 << 20
DEPTHS = (1, 4, 16, 64)  # threads of the disk's reader, each with one read in flight
DEPTH_BYTES = 128 << 20  # no more than this is in flight, or kept


class MemoryCeiling:
    """A reader of arrays, on the pool of the engine's kernels: vector loads and additions, nothing else."""

    def __init__(self, library: Path, arrays: Sequence[Array], threads: int) -> None:
        """`library` is `baseline.probe.library`'s. The arrays are kept, and no copies of them."""
        self.kernel = native.CpuKernel(str(library), "read_memory", threads)
        self.arrays = arrays
        blocks = [block for array in arrays for block in _blocks(array)]
        self.addresses = [address for address, _ in blocks]
        self.dims = [len(blocks), *(words for _, words in blocks)]
        self.nbytes = 8 * sum(self.dims[1:])
        self.taken, self.sum = np.zeros(1, np.int64), np.zeros(1, np.uint64)

    def gbps(self) -> float:
        """1e9 bytes a second of one pass over all arrays."""
        self.taken[0] = self.sum[0] = 0
        outputs = [self.taken.ctypes.data, self.sum.ctypes.data]
        return float(self.nbytes / self.kernel.run(self.addresses, outputs, self.dims)[0] / 1e9)


def _blocks(array: Array) -> list[tuple[int, int]]:
    """Address and 8-byte words of each block; what does not fill a last word is left out."""
    starts = range(0, array.nbytes, BLOCK_BYTES)
    return [(array.ctypes.data + start, min(BLOCK_BYTES, array.nbytes - start) // 8) for start in starts]


class DiskCeiling:
    """A reader of random blocks of a file, which it keeps: a thread for each read in flight, nothing else."""

    def __init__(self, library: Path, descriptor: int, file_bytes: int, size: int) -> None:
        """`descriptor` is open for direct reads, `size` (a multiple of a page) the bytes of one read."""
        self.function = ctypes.CDLL(str(library)).read_disk
        self.function.restype = ctypes.c_double
        read, block = (ctypes.c_int, ctypes.c_void_p, ctypes.c_long), (ctypes.c_long, ctypes.c_int)
        self.function.argtypes = (*read, *block, ctypes.c_void_p, ctypes.c_long)
        self.descriptor, self.size, self.blocks = descriptor, size, file_bytes // size
        self.depths = [depth for depth in DEPTHS if depth == 1 or depth * size <= DEPTH_BYTES]
        self.memory = read_buffer(max(DEPTH_BYTES, size))
        self.random = np.random.default_rng()

    def gbps(self, count: int, depth: int) -> float:
        """1e9 bytes a second of `count` reads, `depth` in flight. OSError where one fails."""
        offsets = self.size * self.random.permutation(self.blocks)[:count].astype(np.int64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        places = len(self.memory) // self.size
        seconds = self.function(self.descriptor, offsets.ctypes.data, len(offsets), self.size, depth, address, places)
        if seconds < 0:
            raise OSError(int(-seconds), os.strerror(int(-seconds)))
        return float(len(offsets) * self.size / seconds / 1e9)

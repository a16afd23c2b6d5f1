"""Buffers that end at a page which nobody may touch, so that reading or writing past one is a crash, not silence."""

import ctypes
import mmap
import os

import numpy as np
import xxhash
from numpy.typing import NDArray

POISON = 0xFF  # every float of such bytes is a NaN, in each of the element types
_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


class GuardedBuffer:
    """`nbytes` of memory between two protected pages, flush with the second one, all POISON.

    What lies between the first guard and the data (less than a page) is POISON too, and `intact` says if it still is.
    The data starts at a multiple of its element's size, and of nothing more: kernels must not assume wider alignment.
    """

    def __init__(self, nbytes: int) -> None:
        """OSError when the memory cannot be mapped or protected."""
        page = mmap.PAGESIZE
        inner = -(-max(nbytes, 1) // page) * page
        self._map = mmap.mmap(-1, inner + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._map, np.uint8)
        self._slack = whole[page : page + inner - nbytes]
        self.data: NDArray[np.uint8] = whole[page + inner - nbytes : page + inner]
        whole[page : page + inner] = POISON
        for guard in (whole[:page], whole[page + inner :]):
            if _libc.mprotect(ctypes.c_void_p(guard.ctypes.data), ctypes.c_size_t(page), _PROT_NONE):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @classmethod
    def holding(cls, array: NDArray[np.generic]) -> "GuardedBuffer":
        """A guarded copy of `array`."""
        buffer = cls(array.nbytes)
        buffer.data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return buffer

    @property
    def address(self) -> int:
        """Where the data starts."""
        return int(self.data.ctypes.data)

    @property
    def intact(self) -> bool:
        """Whether nothing was written in front of the data."""
        return bool((self._slack == POISON).all())


def array_hash(array: NDArray[np.generic]) -> str:
    """The xxh3_128 of an array's bytes, in hex."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

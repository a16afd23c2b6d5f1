"""Calls a built CPU kernel through its C ABI, on buffers that end at a page no one may touch."""

import ctypes
import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from baseline.contract import Case, Contract
from baseline.elements import Array

KERNELS = Path(__file__).parents[1] / "kernels"
PACKED_OPS = ("expert_gate_up", "expert_down", "qmatvec")  # those whose weights are packed
OPS = (*PACKED_OPS, "gated_delta_step")
_LIBC = ctypes.CDLL(None, use_errno=True)
_PROT_NONE = 0


def guarded(array: Array) -> Array:
    """A copy that ends where an inaccessible page begins: reading or writing past it kills the test run."""
    pages = -(-max(array.nbytes, 1) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    end = pages * mmap.PAGESIZE
    whole = np.frombuffer(memory, np.uint8)
    if _LIBC.mprotect(ctypes.c_void_p(whole.ctypes.data + end), ctypes.c_size_t(mmap.PAGESIZE), _PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect failed")
    copy = whole[end - array.nbytes : end].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def call(
    library: Path,
    symbol: str,
    contract: Contract,
    case: Case,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    threads: int,
) -> None:
    """One kernel call: every thread's share in turn, writing into `outputs`."""
    entry = ctypes.CDLL(str(library))[symbol]
    dims = (ctypes.c_long * len(contract.dims))(*(case.dims[name] for name in contract.dims))
    pointers = [_pointers(inputs), _pointers(outputs)]
    for thread in range(threads):
        entry(*pointers, dims, ctypes.c_int(thread), ctypes.c_int(threads))


def _pointers(tensors: Mapping[str, Array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(array.ctypes.data for array in tensors.values()))

"""What MLX lacks, in C++: the primitives `expert_read` and `cpu_kernel` with their pool of threads, and the emulator.

The C++ beside this file is built into `_native` against the exact MLX release that is pinned in pyproject.toml.
"""

from pathlib import Path

from baseline.native import _native
from baseline.native._native import (
    CpuKernel,
    EmulatedKernel,
    ExpertFile,
    MappedExperts,
    Prefetch,
    counters,
    expert_map,
    expert_read,
    limit_buffers,
    pool_size,
    reserve_threads,
    start_symbolizer,
    uring_available,
    use_huge_pages,
)

__all__ = [
    "CpuKernel",
    "EmulatedKernel",
    "ExpertFile",
    "MappedExperts",
    "Prefetch",
    "counters",
    "expert_map",
    "expert_read",
    "library_folder",
    "limit_buffers",
    "pool_size",
    "reserve_threads",
    "start_symbolizer",
    "uring_available",
    "use_huge_pages",
]


def library_folder() -> Path:
    """Where the built libraries lie, which in an editable installation is not beside this file."""
    return Path(str(_native.__file__)).parent

"""The two MLX primitives that MLX lacks, `expert_read` and `cpu_kernel`, and their shared pool of threads.

The C++ beside this file is built into `_native` against the exact MLX release that is pinned in pyproject.toml.
"""

from baseline.native._native import (
    CpuKernel,
    ExpertFile,
    counters,
    expert_read,
    pool_size,
    reserve_threads,
)

__all__ = ["CpuKernel", "ExpertFile", "counters", "expert_read", "pool_size", "reserve_threads"]

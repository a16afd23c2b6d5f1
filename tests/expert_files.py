"""A small file of packed experts for tests, and reads of it."""

from pathlib import Path

import mlx.core as mx
import numpy as np

from baseline import native

STRIDE = 8192
EXPERTS = 6
METHODS = [False, True] if native.uring_available() else [False]


def write_records(path: Path, stride: int = STRIDE) -> np.ndarray:
    """Fill `path` with random experts and return them, uint8 [EXPERTS, stride]."""
    records = np.random.default_rng(0).integers(0, 256, (EXPERTS, stride), dtype=np.uint8)
    path.write_bytes(records.tobytes())
    return records


def read(path: Path, indices: object, *, direct: bool = False, **options: object) -> list[mx.array]:
    file = native.ExpertFile(str(path), 7, EXPERTS, STRIDE, direct)
    arrays = native.expert_read(file, mx.array(indices), **options)
    mx.eval(arrays)
    return arrays

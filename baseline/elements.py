"""Element types as numpy stores them. numpy has no bfloat16: its bit patterns travel as uint16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STORAGE: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "int32": np.dtype(np.int32),
}


def store(values: Array, element_type: str) -> Array:
    """`values` rounded to nearest even in an element type's storage (uint16 bit patterns for bfloat16)."""
    if element_type != "bfloat16":
        return values.astype(STORAGE[element_type])
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded


def widen(stored: Array, element_type: str) -> NDArray[np.float64]:
    """The float64 values of an element type's storage; exact."""
    if element_type != "bfloat16":
        return stored.astype(np.float64)
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)

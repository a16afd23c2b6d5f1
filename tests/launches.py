"""Launches of the emulated drop-in, as its tests make them."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from baseline.targets.emulated import metal_kernel

I = "uint i = thread_position_in_grid.x;\n"  # noqa: E741
TWICE = metal_kernel("twice", ["x"], ["y"], f"{I}y[i] = 2 * x[i];")


def launch(kernel: Any, *inputs: Any, shape: Sequence[int] = (), dtype: mx.Dtype = mx.float32, **more: Any) -> mx.array:
    """One output, of the first input's shape unless given, with a thread an element."""
    shape = shape or inputs[0].shape
    arguments = {"grid": (int(np.prod(shape)), 1, 1), "threadgroup": (32, 1, 1)} | more
    (out,) = kernel(inputs=list(inputs), output_shapes=[shape], output_dtypes=[dtype], **arguments)
    assert isinstance(out, mx.array)
    return out


def same(found: mx.array, expected: Any) -> None:
    """numpy, asked to convert an array whose evaluation fails, asks twice, and the second time gets what lies there."""
    mx.eval(found)
    np.testing.assert_array_equal(np.array(found), np.array(expected))

"""The drop-in for mx.fast.metal_kernel on views: strides, alignment, memory that is not their own; beside numpy."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baseline.targets.emulated import metal_kernel
from tests.launches import TWICE, I, launch, same

STRIDED = metal_kernel(
    "strided",
    ["x"],
    ["y"],
    f"{I}y[i] = x[elem_to_loc(int64_t(i), x_shape, x_strides, x_ndim)];",
    ensure_row_contiguous=False,
)

VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "rows": lambda x: x[2:5],
    "columns": lambda x: x[:, 1:4],
    "steps": lambda x: x[::2, ::3],
    "reversed": lambda x: x[::-1],
    "both_reversed": lambda x: x[::-1, ::-1],
    "reversed_steps": lambda x: x[5:0:-2, 4::-1],
    "three_axes": lambda x: x.reshape(3, 2, 5)[:, ::-1, 1:].transpose(2, 0, 1),
    "element": lambda x: x[3, 2:3],
    "empty": lambda x: x[3:3],
}


@pytest.mark.parametrize("view", VIEWS)
def test_strides_reach_any_view_without_a_copy(view: str) -> None:
    x = np.arange(30, dtype=np.float32).reshape(6, 5)
    expected = VIEWS[view](x)
    same(launch(STRIDED, VIEWS[view](mx.array(x)), shape=expected.shape), expected)
    same(launch(TWICE, VIEWS[view](mx.array(x)), shape=expected.shape), 2 * expected)


def test_an_unsigned_location_does_not_reach_a_reversed_view() -> None:
    source = f"{I}y[i] = x[elem_to_loc(i, x_shape, x_strides, x_ndim)];"
    kernel = metal_kernel("wraps", ["x"], ["y"], source, ensure_row_contiguous=False)
    with pytest.raises(RuntimeError, match=r"out of bounds: .* of `x`.* no buffer is near"):
        mx.eval(launch(kernel, mx.ones(8)[::-1]))


def test_a_broadcast_view_has_strides_of_zero_and_no_memory_of_its_own() -> None:
    x = mx.broadcast_to(mx.array([1.0, 2.0, 3.0])[:, None], (3, 4))
    same(launch(STRIDED, x), np.array(x))
    source = f"{I}y[i] = x_strides[i] + 10 * x_shape[i] + 100 * x_ndim + 0 * x[i];"
    out = launch(metal_kernel("facts", ["x"], ["y"], source, ensure_row_contiguous=False), x, shape=(2,))
    same(out, [231, 240])
    with pytest.raises(RuntimeError, match="of `x`, which has 12"):
        mx.eval(launch(metal_kernel("beyond", ["x"], ["y"], f"{I}y[i] = x[i];", ensure_row_contiguous=False), x))


def test_a_view_is_aligned_as_its_place_in_the_buffer_is() -> None:
    kernel = metal_kernel("vectors", ["x"], ["y"], f"{I}y[i] = dot(((const device float4*)x)[i], float4(1));")
    x = np.arange(36, dtype=np.float32)
    sums = launch(kernel, mx.array(x)[4:20], shape=(4,))
    same(sums, x[4:20].reshape(4, 4).sum(1))
    with pytest.raises(RuntimeError, match="misaligned: accesses what is aligned to 16 bytes at byte 0 of `x`"):
        mx.eval(launch(kernel, mx.array(x)[1:17], shape=(4,)))

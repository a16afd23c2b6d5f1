"""The primitive `cpu_kernel`: a compiled entry point in MLX's graph, and outside of it."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import native
from tests.expert_files import EXPERTS, STRIDE


@settings(max_examples=25)
@given(n=st.integers(1, 3000), threads=st.integers(1, 6))
def test_a_kernel_runs_in_the_graph_part_by_part(library, n, threads):
    a, b = mx.random.normal((n, 2))[:, 0], mx.random.normal((n,))
    kernel = native.CpuKernel(library, "add", threads)
    y, seen = kernel([a * 3, b], [(n,), (kernel.parts,)], [mx.float32, mx.int32], [n])
    assert mx.array_equal(y - 1, a * 3 + 2 * b - 1)
    assert seen.tolist() == list(range(1, kernel.parts + 1))


@st.composite
def views(draw):
    """An array that MLX gives as a view of another one: turned, cut, strided, broadcast, or none of it."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    array = mx.arange(math.prod(shape)).astype(mx.float32).reshape(shape)
    array = array.transpose(draw(st.permutations(range(len(shape)))))
    for axis, size in enumerate(array.shape):
        start, step = draw(st.integers(0, size - 1)), draw(st.integers(1, 2))
        index = [slice(None)] * array.ndim
        index[axis] = slice(start, None, step)
        array = array[tuple(index)]
    if draw(st.booleans()):
        array = mx.broadcast_to(array, (3, *array.shape))
    return array


@settings(max_examples=60)
@given(view=views(), evaluated=st.booleans())
def test_a_kernel_sees_a_view_as_a_dense_array(library, view, evaluated):
    if evaluated:
        mx.eval(view)
    kernel, n = native.CpuKernel(library, "add", 2), view.size
    y, _ = kernel([view, mx.zeros(n)], [(n,), (kernel.parts,)], [mx.float32, mx.int32], [n])
    assert y.tolist() == view.reshape(-1).tolist()


def test_one_thread_has_one_part(library):
    assert native.CpuKernel(library, "add", 1).parts == 1 and native.CpuKernel(library, "add", 3).parts > 3


def test_a_kernel_runs_outside_the_graph(library):
    a, b, out = (np.arange(8, dtype=np.float32) for _ in range(3))
    kernel = native.CpuKernel(library, "add", 2)
    seen = np.zeros(kernel.parts, np.int32)
    seconds = kernel.run([a.ctypes.data, b.ctypes.data], [out.ctypes.data, seen.ctypes.data], [8], 5)
    assert len(seconds) == 5 and all(s > 0 for s in seconds) and kernel.seconds >= sum(seconds) / 2
    assert np.array_equal(out, a + 2 * b)


def test_a_library_without_the_symbol_is_refused(library):
    with pytest.raises(RuntimeError, match="has no symbol subtract"):
        native.CpuKernel(library, "subtract", 1)


def test_the_graph_holds_no_python_object(packed, library):
    """Else MLX's stream thread would need the GIL to drop it, and mx.clear_cache() waits for that thread with the GIL
    held: a deadlock, met in mlx_lm's generate_step."""
    kernel = native.CpuKernel(library, "add", 2)
    for _ in range(20):
        file = native.ExpertFile(str(packed[0]), 7, EXPERTS, STRIDE, False)
        (records,) = native.expert_read(file, mx.array([1, 2]))
        y, _ = kernel(
            [records.view(mx.float32)[0], records.view(mx.float32)[1]],
            [(2048,), (kernel.parts,)],
            [mx.float32, mx.int32],
            [2048],
        )
        mx.async_eval(y)
        mx.clear_cache()

"""The primitive `cpu_kernel`: a compiled entry point in MLX's graph, and outside of it."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import native
from tests.expert_files import EXPERTS, STRIDE


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 3000), threads=st.integers(1, 6))
def test_a_kernel_runs_in_the_graph_on_all_its_threads(library, n, threads):
    a, b = mx.random.normal((n, 2))[:, 0], mx.random.normal((n,))
    kernel = native.CpuKernel(library, "add", threads)
    y, seen = kernel([a * 3, b], [(n,), (threads,)], [mx.float32, mx.int32], [n])
    assert mx.array_equal(y - 1, a * 3 + 2 * b - 1)
    assert seen.tolist() == list(range(1, threads + 1))


def test_a_kernel_runs_outside_the_graph(library):
    a, b, out = (np.arange(8, dtype=np.float32) for _ in range(3))
    seen = np.zeros(2, np.int32)
    kernel = native.CpuKernel(library, "add", 2)
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
            [records.view(mx.float32)[0], records.view(mx.float32)[1]], [(2048,), (2,)], [mx.float32, mx.int32], [2048]
        )
        mx.async_eval(y)
        mx.clear_cache()

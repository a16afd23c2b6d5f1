"""Atomics of the emulated Metal Standard Library: what many threadgroups leave behind."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.targets.emulated import metal_kernel

HISTOGRAM = metal_kernel(
    name="msl_histogram",
    input_names=["bins"],
    output_names=["counts"],
    source="""
    threadgroup atomic_uint local[8];
    uint i = thread_index_in_threadgroup;
    if (i < 8) atomic_store_explicit(&local[i], 0, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    atomic_fetch_add_explicit(&local[bins[thread_position_in_grid.x]], 1, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (i < 8) {
      uint count = atomic_load_explicit(&local[i], memory_order_relaxed);
      atomic_fetch_add_explicit(&counts[i], count, memory_order_relaxed);
    }
    """,
    atomic_outputs=True,
)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 7), min_size=48, max_size=200).map(lambda bins: bins[: len(bins) // 16 * 16]))
def test_a_histogram_counts_across_threadgroups(bins):
    (counts,) = HISTOGRAM(
        inputs=[mx.array(bins, dtype=mx.uint32)],
        grid=(len(bins), 1, 1),
        threadgroup=(16, 1, 1),
        output_shapes=[(8,)],
        output_dtypes=[mx.uint32],
        init_value=0,
    )
    assert counts.tolist() == np.bincount(bins, minlength=8).tolist()


FETCH = ["add", "sub", "and", "or", "xor", "min", "max"]
FOLDS = {
    "add": np.add,
    "sub": np.subtract,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.minimum,
    "max": np.maximum,
}
FETCH_EACH = metal_kernel(
    name="msl_fetch",
    input_names=["data"],
    output_names=["results"],
    source="\n".join(
        f"atomic_fetch_{name}_explicit(results + {at}, data[thread_position_in_grid.x], memory_order_relaxed);"
        for at, name in enumerate(FETCH)
    ),
    atomic_outputs=True,
)


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32])
@pytest.mark.parametrize("initial", [0, 12345])
def test_each_fetch_function_folds_all_values(dtype, initial):
    """Sums wrap around: the values span the whole type."""
    limits = np.iinfo(np.array(mx.array(0, dtype)).dtype)
    data = np.random.default_rng(initial).integers(limits.min, limits.max, 96, dtype=limits.dtype, endpoint=True)
    (results,) = FETCH_EACH(
        inputs=[mx.array(data)],
        grid=(96, 1, 1),
        threadgroup=(40, 1, 1),
        output_shapes=[(len(FETCH),)],
        output_dtypes=[dtype],
        init_value=initial,
    )
    start = np.array([initial], dtype=limits.dtype)
    for name, result in zip(FETCH, results.tolist(), strict=True):
        assert result == FOLDS[name].reduce(np.concatenate([start, data]), dtype=limits.dtype), name


SINGLES = metal_kernel(
    name="msl_atomic_singles",
    input_names=["data", "values"],
    output_names=["tickets", "swapped", "doubled", "total", "largest", "seen"],
    source="""
    uint i = thread_position_in_grid.x;
    // Each thread gets a ticket of its own from a counter behind the tickets.
    tickets[i] = atomic_fetch_add_explicit((device atomic_uint*)tickets + threads_per_grid.x, 1u, memory_order_relaxed);
    // A value that goes from thread to thread: the ones received and the one left are all that were put in.
    swapped[i] = atomic_exchange_explicit((device atomic<int>*)(swapped + threads_per_grid.x), data[i],
                                          memory_order_relaxed);
    // An atomic change that Metal has no function for.
    device atomic_float* cell = (device atomic_float*)doubled;
    float before = atomic_load_explicit(cell, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(cell, &before, before * 2, memory_order_relaxed,
                                                  memory_order_relaxed)) {}
    atomic_fetch_add_explicit((device atomic<float>*)total, values[i], memory_order_relaxed);
    atomic_max_explicit((device atomic_ulong*)largest, ulong(data[i]) << 32 | i, memory_order_relaxed);
    threadgroup atomic_bool some;
    if (thread_index_in_threadgroup == 0) atomic_store_explicit(&some, false, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    if (data[i] == 17) atomic_store_explicit(&some, true, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    seen[i] = atomic_load_explicit(&some, memory_order_relaxed);
    """,
)


def test_exchanges_compare_and_swap_floats_and_longs():
    n, group = 80, 32
    rng = np.random.default_rng(5)
    data = rng.permutation(n).astype(np.int32)
    values = rng.integers(-1000, 1000, n).astype(np.float32) / 8  # sums are exact in any order
    tickets, swapped, doubled, total, largest, seen = SINGLES(
        inputs=[mx.array(data), mx.array(values)],
        grid=(n, 1, 1),
        threadgroup=(group, 1, 1),
        output_shapes=[(n + 1,), (n + 1,), (1,), (1,), (1,), (n,)],
        output_dtypes=[mx.uint32, mx.int32, mx.float32, mx.float32, mx.uint64, mx.bool_],
        init_value=1,
    )
    assert sorted(tickets.tolist()) == list(range(1, n + 2))
    assert sorted(swapped.tolist()) == sorted([1, *data.tolist()])
    assert doubled.item() == 2.0**n
    assert total.item() == 1 + values.sum()
    assert largest.item() == (n - 1) << 32 | int(data.argmax())
    with_17 = int(np.flatnonzero(data == 17)[0]) // group
    assert seen.tolist() == [i // group == with_17 for i in range(n)]

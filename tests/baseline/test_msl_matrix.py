"""SIMD-group matrices of the emulated Metal Standard Library, against numpy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.targets.emulated import metal_kernel

TYPES = [mx.float32, mx.float16, mx.bfloat16]
ROWS, COLUMNS = 24, 40  # of the arrays that matrices are cut from


def run(kernel, inputs, shapes, dtypes, template=()):
    return kernel(
        inputs=inputs,
        template=list(template),
        grid=(64, 1, 1),  # two SIMD groups
        threadgroup=(64, 1, 1),
        output_shapes=shapes,
        output_dtypes=dtypes,
    )


def to_numpy(array):
    return np.array(array.astype(mx.float32))


def small_integers(rng, *shape):
    """Values whose products and sums are exact in every type."""
    return rng.integers(-3, 4, shape).astype(np.float32)


MULTIPLY = metal_kernel(
    name="msl_multiply",
    input_names=["a", "b", "c", "at"],
    output_names=["product", "sum", "mixed"],
    source="""
    simdgroup_matrix<T, 8, 8> A, B, C, D;
    simdgroup_float8x8 F = make_filled_simdgroup_matrix<float, 8, 8>(0.5f);
    uint group = simdgroup_index_in_threadgroup;
    ulong2 a_at = ulong2(at[0], at[1]), b_at = ulong2(at[2], at[3]);
    bool transpose_a = at[4] != 0, transpose_b = at[5] != 0;
    simdgroup_load(A, a, 40, a_at, transpose_a);
    simdgroup_load(B, b, 40, b_at, transpose_b);
    simdgroup_load(C, c + 64 * group);
    simdgroup_multiply(D, A, B);
    simdgroup_store(D, product + 64 * group);
    simdgroup_multiply_accumulate(D, A, B, C);
    simdgroup_store(D, sum + 64 * group, 8, ulong2(0), true);
    simdgroup_multiply_accumulate(F, A, B, F);
    simdgroup_store(F, mixed + 64 * group);
    """,
)


def cut(array, origin, transpose):
    """The 8x8 matrix at `origin` = (column, row) of the array, or of its transpose."""
    column, row = origin
    return (array.T if transpose else array)[row : row + 8, column : column + 8]


@settings(max_examples=15)
@given(st.data(), st.sampled_from(TYPES), st.booleans(), st.booleans())
def test_multiply_accumulate_of_matrices_anywhere_in_a_larger_one(draw, dtype, transpose_a, transpose_b):
    rng = np.random.default_rng(draw.draw(st.integers(0, 1000)))
    a, b, c = (small_integers(rng, *shape) for shape in ((ROWS, COLUMNS), (ROWS, COLUMNS), (2, 8, 8)))
    corners = []
    for transpose in (transpose_a, transpose_b):
        rows, columns = (COLUMNS, ROWS) if transpose else (ROWS, COLUMNS)
        corners.append((draw.draw(st.integers(0, columns - 8)), draw.draw(st.integers(0, rows - 8))))
    at = mx.array([*corners[0], *corners[1], transpose_a, transpose_b], dtype=mx.uint32)
    product, total, mixed = run(
        MULTIPLY,
        [*(mx.array(x).astype(dtype) for x in (a, b, c)), at],
        [(2, 8, 8)] * 3,
        [dtype, dtype, mx.float32],
        [("T", dtype)],
    )
    want = cut(a, corners[0], transpose_a) @ cut(b, corners[1], transpose_b)
    assert np.array_equal(to_numpy(product), np.stack([want, want]))
    assert np.array_equal(to_numpy(total), (want + c).transpose(0, 2, 1))
    assert np.array_equal(to_numpy(mixed), np.stack([want, want]) + 0.5)


@pytest.mark.parametrize("dtype", TYPES)
def test_sums_are_accumulated_in_float(dtype):
    """One rounding at the end: far below what rounding each of the eight sums to 16 bits would give."""
    rng = np.random.default_rng(1)
    a, b = (mx.array(rng.standard_normal((ROWS, COLUMNS))).astype(dtype) for _ in range(2))
    product, *_ = run(
        MULTIPLY,
        [a, b, mx.zeros((2, 8, 8), dtype=dtype), mx.array([0, 0, 0, 0, 0, 0], dtype=mx.uint32)],
        [(2, 8, 8)] * 3,
        [dtype, dtype, mx.float32],
        [("T", dtype)],
    )
    exact = to_numpy(a)[:8, :8].astype(np.float64) @ to_numpy(b)[:8, :8].astype(np.float64)
    half_ulp = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}[dtype]
    scale = np.abs(to_numpy(a)[:8, :8]).astype(np.float64) @ np.abs(to_numpy(b)[:8, :8])
    assert (np.abs(to_numpy(product)[0] - exact) <= half_ulp * np.abs(exact) + 8 * 2.0**-24 * scale).all()


ELEMENTS = metal_kernel(
    name="msl_matrix_elements",
    input_names=["a", "b"],
    output_names=["diagonal", "filled", "product", "sum", "difference", "mine"],
    source="""
    simdgroup_matrix<T, 8, 8> A, B;
    simdgroup_load(A, a, 8);
    simdgroup_load(B, b, 8);
    simdgroup_store(simdgroup_matrix<T, 8, 8>(T(3)), diagonal, 8);
    simdgroup_store(make_filled_simdgroup_matrix<T, 8>(T(5)), filled, 8);
    simdgroup_store(A * B, product, 8);
    simdgroup_store(A + B, sum, 8);
    simdgroup_store(A - B, difference, 8);
    // The layout that MLX's matrix kernels count on.
    uint lane = thread_index_in_simdgroup, quad = lane / 4;
    uint row = (quad & 4) + (lane / 2) % 4, column = (quad & 2) * 2 + (lane % 2) * 2;
    mine[row * 8 + column] = A.thread_elements()[0];
    mine[row * 8 + column + 1] = A.thread_elements()[1];
    """,
)


@pytest.mark.parametrize("dtype", TYPES)
def test_construction_operators_and_layout(dtype):
    rng = np.random.default_rng(2)
    a, b = small_integers(rng, 8, 8), small_integers(rng, 8, 8)
    got = ELEMENTS(
        inputs=[mx.array(a).astype(dtype), mx.array(b).astype(dtype)],
        template=[("T", dtype)],
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[(8, 8)] * 6,
        output_dtypes=[dtype] * 6,
    )
    wanted = [3 * np.eye(8), np.full((8, 8), 5), a @ b, a + b, a - b, a]
    for result, want in zip(got, wanted, strict=True):
        assert np.array_equal(to_numpy(result), want)

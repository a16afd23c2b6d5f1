"""What MLX puts in front of custom kernels, in the emulated target: complex numbers, indices, limits."""

import mlx.core as mx
import numpy as np
import pytest

from baseline.targets.emulated import metal_kernel

OPERATIONS = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: x / y,
    "-x": lambda x, y: -x,
    "2.0f * x + 1.0f": lambda x, y: 2 * x + 1,
    "1.0f / y - x / 2.0f": lambda x, y: 1 / y - x / 2,
    "complex64_t(x.imag, x.real)": lambda x, y: x.imag + 1j * x.real,
    "log1p(x)": lambda x, y: np.log1p(x.astype(np.complex128)),
    "simd_sum(x)": lambda x, y: np.broadcast_to(x.sum(), x.shape),
    "simd_shuffle_down(x, 0)": lambda x, y: x,
}


def test_complex_arithmetic():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2, 32)) + 1j * rng.standard_normal((2, 32))).astype(np.complex64)
    assignments = "\n".join(f"out[{row * 32} + i] = {text};" for row, text in enumerate(OPERATIONS))
    kernel = metal_kernel(
        name="msl_complex",
        input_names=["a", "b"],
        output_names=["out"],
        source=f"uint i = thread_position_in_grid.x;\ncomplex64_t x = a[i], y = b[i];\n{assignments}",
    )
    (out,) = kernel(
        inputs=[mx.array(x), mx.array(y)],
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[(len(OPERATIONS), 32)],
        output_dtypes=[mx.complex64],
    )
    for got, (text, operation) in zip(np.array(out), OPERATIONS.items(), strict=True):
        np.testing.assert_allclose(got, operation(x, y), rtol=2e-5, atol=2e-6, err_msg=text)


GATHER = """
uint i = thread_position_in_grid.x;
flat[i] = a[elem_to_loc(i, a_shape, a_strides, a_ndim)];
uint rows = a_shape[1], columns = a_shape[2];
uint3 at = uint3(i % columns, i / columns % rows, i / (columns * rows));
by_axis[i] = a[elem_to_loc(at, a_shape, a_strides, a_ndim)];
fixed[i] = a[elem_to_loc_3(at, a_strides)];
narrow[i] = a[elem_to_loc<int>(int(i), a_shape, a_strides, a_ndim)];
"""


def test_elements_of_an_array_that_is_not_contiguous():
    base = mx.arange(4 * 5 * 6).reshape(4, 5, 6)
    a = base.transpose(2, 0, 1)[1::2]
    kernel = metal_kernel(
        name="msl_gather",
        input_names=["a"],
        output_names=["flat", "by_axis", "fixed", "narrow"],
        source=GATHER,
        ensure_row_contiguous=False,
    )
    outputs = kernel(
        inputs=[a],
        grid=(a.size, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[a.shape] * 4,
        output_dtypes=[a.dtype] * 4,
    )
    for got in outputs:
        assert mx.array_equal(got, a)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_log1p_keeps_small_values(dtype):
    x = mx.array(np.concatenate([np.logspace(-7, 3, 62), [0.0, np.inf]])).astype(dtype)
    kernel = metal_kernel(
        name="msl_log1p",
        input_names=["x"],
        output_names=["y"],
        source="uint i = thread_position_in_grid.x; y[i] = log1p(x[i]);",
    )
    (y,) = kernel(
        inputs=[x], grid=(x.size, 1, 1), threadgroup=(32, 1, 1), output_shapes=[x.shape], output_dtypes=[dtype]
    )
    want = np.log1p(np.array(x.astype(mx.float32)).astype(np.float64))
    ulp = {mx.float32: 2.0**-22, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-8}[dtype]
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), want, rtol=ulp, atol=1e-7)


def test_limits_and_sizes():
    kernel = metal_kernel(
        name="msl_limits",
        input_names=["x"],
        output_names=["out"],
        source="""
        out[0] = Limits<float>::max; out[1] = Limits<float>::finite_min;
        out[2] = Limits<bfloat16_t>::min; out[3] = Limits<float16_t>::finite_max;
        out[4] = Limits<int8_t>::min; out[5] = Limits<uint16_t>::finite_max; out[6] = Limits<bool>::max;
        out[7] = ceildiv(17, 8) + x[0]; out[8] = WorkPerThread<half>::n;
        """,
    )
    (out,) = kernel(
        inputs=[mx.array([0])], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(9,)], output_dtypes=[mx.float32]
    )
    assert out.tolist() == [np.inf, float(np.finfo(np.float32).min), -np.inf, 65504.0, -128.0, 65535.0, 1.0, 3.0, 4.0]


LOOPED = """
uint i = thread_position_in_grid.x;
LoopedElemToLoc<3> one(a_ndim);
for (uint k = 0; k < i; ++k) one.next(a_shape, a_strides);
LoopedElemToLoc<1, int, false> many(a_ndim);
many.next(int(i), a_shape, a_strides);
stepped[i] = a[one.location()];
jumped[i] = a[many.location()];
uint rows = a_shape[1], columns = a_shape[2];
uint3 at = uint3(i % columns, i / columns % rows, i / (columns * rows));
vec<int64_t, 2> two = elem_to_loc_2_nd(at, a_shape, a_strides, b_strides, a_ndim);
vec<int, 3> three = elem_to_loc_3_nd<int>(at, a_shape, a_strides, b_strides, a_strides, a_ndim);
pairs[i] = a[two.x] - b[two.y];
triples[i] = a[three.x] - b[three.y] + a[three.z] + b_shape[0] * 0;
"""


def test_elements_of_several_arrays_one_after_the_other():
    a = mx.arange(4 * 5 * 6).reshape(4, 5, 6).transpose(2, 0, 1)[1::2]
    b = mx.arange(3 * 4 * 5).reshape(5, 3, 4).transpose(1, 2, 0)
    kernel = metal_kernel(
        name="msl_looped",
        input_names=["a", "b"],
        output_names=["stepped", "jumped", "pairs", "triples"],
        source=LOOPED,
        ensure_row_contiguous=False,
    )
    outputs = kernel(
        inputs=[a, b],
        grid=(a.size, 1, 1),
        threadgroup=(a.size, 1, 1),
        output_shapes=[a.shape] * 4,
        output_dtypes=[a.dtype] * 4,
    )
    for got, want in zip(outputs, (a, a, a - b, a - b + a), strict=True):
        assert mx.array_equal(got, want)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.complex64])
def test_only_zeros_are_false(dtype):
    x = mx.array([0.0, -0.0, 1e-30, -2.0, float("nan"), float("inf")]).astype(dtype)
    kernel = metal_kernel(
        name="msl_cast",
        input_names=["x"],
        output_names=["out"],
        source="uint i = thread_position_in_grid.x; out[i] = cast_to<bool>(x[i]);",
    )
    (out,) = kernel(inputs=[x], grid=(6, 1, 1), threadgroup=(6, 1, 1), output_shapes=[(6,)], output_dtypes=[mx.bool_])
    assert out.tolist() == [False, False, True, True, True, True]

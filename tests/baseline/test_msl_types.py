"""The emulated Metal Standard Library's types: bfloat, half, vectors, swizzles, packed vectors, matrices, as_type."""

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseline.elements import store, widen
from tests.msl import DTYPES, NAMES, Function, Library, dtype_of, elements

ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
COMPARISONS = {"equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}
BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
VECTORS = ["float2", "float3", "float4", "half2", "half4", "bfloat3", "int3", "uint4", "ushort4", "uchar2", "long2"]
PACKED = [f"packed_{kind}{n}" for kind in ("float", "half", "uint", "uchar", "short") for n in (2, 3, 4)]
BITS = [
    *[("float", "uint"), ("uint", "float"), ("half", "ushort"), ("ushort", "bfloat"), ("bfloat", "short")],
    *[("half2", "uint"), ("uint", "bfloat2"), ("uchar4", "float"), ("ulong", "uint2"), ("ushort4", "float2")],
    *[("uint4", "float4"), ("float4", "ulong2"), ("half4", "float2"), ("long", "half4"), ("int3", "float3")],
]
SPLITS = [split for n in (2, 3, 4) for split in itertools.product((1, 2, 3), repeat=n) if sum(split) <= 4]


def of(kind, n):
    return kind if n == 1 else f"{kind}{n}"


def split_name(split):
    return "join_" + "".join(map(str, split))


def bfloat_functions():
    yield Function("bfloat_of", ("float",), "bfloat", "bfloat(x)")
    yield Function("float_of", ("bfloat",), "float", "x")
    yield Function("negated", ("bfloat",), "bfloat", "-x")
    for kind in ("bfloat", "half"):
        for name, op in ARITHMETIC.items():
            yield Function(f"{kind}_{name}", (kind, kind), kind, f"x {op} y")
            yield Function(
                f"{kind}_{name}_assigned", (kind, kind), kind, f"[&] {{ {kind} v = x; v {op}= y; return v; }}()"
            )
            yield Function(f"{kind}_{name}_float", (kind, "float"), "float", f"x {op} y")
            yield Function(f"{kind}_{name}_int", (kind, "short"), kind, f"x {op} y")
        for name, op in COMPARISONS.items():
            yield Function(f"{kind}_{name}", (kind, kind), "bool", f"x {op} y")
        yield Function(f"{kind}_chain", (kind, kind, kind), kind, "x * y + z")
        yield Function(f"{kind}_counted", (kind,), kind, f"[&] {{ {kind} v = x; v++; ++v; v--; --v; return v--; }}()")


def vector_functions():
    for kind in VECTORS:
        scalar = kind.rstrip("234")
        for name, op in ARITHMETIC.items():
            yield Function(f"{kind}_{name}", (kind, kind), kind, f"x {op} y")
            yield Function(f"{kind}_{name}_right", (kind, scalar), kind, f"x {op} y")
            yield Function(f"{kind}_{name}_left", (scalar, kind), kind, f"x {op} y")
            yield Function(
                f"{kind}_{name}_assigned", (kind, kind), kind, f"[&] {{ {kind} v = x; v {op}= y; return v; }}()"
            )
        for name, op in COMPARISONS.items():
            yield Function(f"{kind}_{name}", (kind, kind), f"bool{kind[-1]}", f"x {op} y")
        if dtype_of(kind).kind in "iu" and scalar != "bfloat":
            for name, op in BITWISE.items():
                yield Function(f"{kind}_{name}", (kind, kind), kind, f"x {op} y")
            yield Function(f"{kind}_invert", (kind,), kind, "~x")
            yield Function(f"{kind}_left_shift", (kind,), kind, "x << 3")
            yield Function(f"{kind}_right_shift", (kind,), kind, "x >> 2")


def shape_functions():
    for split in SPLITS:
        arguments = tuple(of("int", n) for n in split)
        yield Function(
            split_name(split),
            arguments,
            of("int", sum(split)),
            f"{of('int', sum(split))}({', '.join(NAMES[: len(split)])})",
        )
    for source, target in itertools.product(["float3", "half3", "bfloat3", "int3"], repeat=2):
        yield Function(f"{source}_to_{target}", (source,), target, f"{target}(x)")
    for n in (2, 3, 4):
        yield Function(f"splat{n}", ("float",), f"float{n}", "x")
        yield Function(f"indexed{n}", (f"float{n}", "int"), "float", "x[y]")
        yield Function(
            f"replaced{n}",
            (f"float{n}", "int", "float"),
            f"float{n}",
            f"[&] {{ float{n} v = x; v[y] = z; return v; }}()",
        )
    for source, target in BITS:
        yield Function(f"{source}_as_{target}", (source,), target, f"as_type<{target}>(x)")
    for kind in PACKED:
        plain = kind.removeprefix("packed_")
        yield Function(f"{kind}_unpacked", (kind,), plain, "x")
        yield Function(f"{kind}_packed", (plain,), kind, f"{kind}(x)")
        yield Function(f"{kind}_sum", (kind, plain), kind, "x + y")
        yield Function(f"{kind}_last", (kind,), plain.rstrip("234"), f"x[{int(kind[-1]) - 1}]")
    yield Function("logic", ("bool4", "bool4", "bool4"), "bool4", "(x && !y) || z")


SIZED = [*VECTORS, *PACKED, "half3", "bool3", "short3", "half", "bfloat", "char4"]
LITERALS = ["1.0", "0.1", "65504.0", "6e-8", "1e-8", "0.333333333", "2049.0", "2051.0", "1.00048828125"]
HELPERS = f"""
extern "C" const long sizes[] = {{ {", ".join(f"sizeof({kind}), alignof({kind})" for kind in SIZED)} }};
extern "C" const half half_literals[] = {{ {", ".join(f"{text}h" for text in LITERALS)} }};
extern "C" const bfloat bfloat_literals[] = {{ {", ".join(f"{text}bf" for text in LITERALS)} }};
template <class T>
void limits(float* to) {{
  using L = numeric_limits<T>;
  const T values[] = {{L::max(), L::lowest(), L::min(), L::epsilon(), L::denorm_min(), L::infinity(), L::quiet_NaN()}};
  for (int i = 0; i < 7; ++i) to[i] = float(values[i]);
  to[7] = L::digits, to[8] = L::max_exponent, to[9] = L::min_exponent;
}}
extern "C" void half_limits(float* to) {{ limits<half>(to); }}
extern "C" void float_limits(float* to) {{ limits<float>(to); }}
extern "C" void bfloat_limits(float* to) {{ limits<bfloat>(to); }}
extern "C" void products(const float4x4* m, const float4* v, float4* out) {{
  out[0] = m[0] * v[0], out[1] = v[0] * m[0];
  const float4x4 product = m[0] * m[1], turned = transpose(m[0]);
  for (int i = 0; i < 4; ++i) out[2 + i] = product[i], out[6 + i] = turned[i];
  out[10] = float4(determinant(m[0]));
}}

// What holds at compile time.
static_assert(is_same_v<decltype(bfloat(1) + bfloat(1)), bfloat> && is_same_v<decltype(bfloat(1) + 1), bfloat>);
static_assert(is_same_v<decltype(bfloat(1) * 1.0f), float> && is_same_v<decltype(bfloat(1) * half(1)), float>);
static_assert(is_same_v<decltype(true ? bfloat(1) : 1.0f), float> && is_same_v<decltype(true ? bfloat(1) : 0), bfloat>);
static_assert(is_same_v<decltype(half(1) * 1), half> && is_same_v<decltype(half(1) * 1.0f), float>);
static_assert(is_same_v<decltype(half4(1) * 2.0f), half4> && is_same_v<decltype(2 * float2(1)), float2>);
static_assert(is_convertible_v<bfloat, float> && !is_convertible_v<float, bfloat> && !is_convertible_v<half, bfloat>);
static_assert(is_convertible_v<float, half> && is_convertible_v<int, bfloat> && !is_convertible_v<bfloat, half>);
static_assert(is_convertible_v<float, float4> && !is_convertible_v<half4, float4> && !is_convertible_v<float4, float3>);
static_assert(is_floating_point_v<half> && is_floating_point<bfloat>::value && !is_floating_point_v<int>);
static_assert(is_integral_v<uchar> && !is_integral_v<bfloat> && is_signed_v<bfloat> && is_arithmetic_v<half>);
template <class A, class B>
constexpr bool adds = requires(A a, B b) {{ a + b; }};
static_assert(adds<float4, float4> && !adds<float4, half4> && !adds<float4, float3> && !adds<int4, float4>);
constexpr float4 fixed(1, 2.0h, float2(3, 4));
static_assert(fixed.x == 1 && fixed.y == 2 && fixed[2] == 3 && (fixed * 2).w == 8 && (fixed > 3).w && max(2, 3) == 3);
static_assert(is_same_v<char4, vec<int8_t, 4>> && is_same_v<decltype(vec<char, 2>(1) + char2(2)), char2>);
static_assert(is_convertible_v<vec<char, 3>, char3> && is_convertible_v<char3, vec<char, 3>>);
static_assert(is_same_v<decltype(half4(1.0) * 0.5), half4> && is_same_v<decltype(bfloat(1) * 0.5), float>);
static_assert(half4(1.0, 2.0, half2(0.5)).y == 2.0 && is_same_v<decltype(max(half(1), 0.5)), float>);
union Words {{ float4 vector; uint words[4]; bfloat small[8]; }};
static_assert(sizeof(Words) == 16 && sizeof(array<float3, 2>) == 32);
constexpr array<int, 3> three = {{{{1, 2, 3}}}};
static_assert(three[2] == 3 && three.size() == 3);
"""
FUNCTIONS = [*bfloat_functions(), *vector_functions(), *shape_functions()]


@pytest.fixture(scope="module")
def msl():
    return Library(FUNCTIONS, HELPERS)


words = st.integers(0, 2**32 - 1)
patterns = st.integers(0, 2**16 - 1)
generator = np.random.default_rng


def sample(kind, n=50, seed=0):
    """Random values of a type, small enough for exact integer arithmetic and never zero."""
    random = generator(seed + len(kind))
    shape = (n, elements(kind)) if elements(kind) > 1 else n
    dtype = dtype_of(kind)
    if is_bfloat(kind):
        return store(random.normal(size=shape).astype(np.float32), "bfloat16")
    if dtype.kind == "f":
        return random.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    values = random.integers(1, 100, shape)
    return (values if dtype.kind == "u" else values * random.choice([-1, 1], shape)).astype(dtype)


def is_bfloat(kind):
    return "bfloat" in kind


def computed(operation, kind, *values):
    """numpy's value of an operation in the arithmetic of an MSL type; integers divide towards zero."""
    with np.errstate(all="ignore"):
        if is_bfloat(kind):
            wide = [widen(value, "bfloat16").astype(np.float32) for value in values]
            result = operation(*wide)
            return result if result.dtype == np.bool_ else store(result, "bfloat16")
        if operation is np.divide and dtype_of(kind).kind in "iu":
            return np.fix(values[0] / values[1].astype(np.float64)).astype(values[0].dtype)
        return operation(*values)


def assert_same(got, expected):
    """Equal to the last bit; every NaN is as good as another."""
    expected = np.asarray(expected, got.dtype)
    if got.dtype == np.uint16:  # perhaps a bfloat: uint16 results of integer types never look like different NaNs
        nan = (got & 0x7FFF > 0x7F80) & (expected & 0x7FFF > 0x7F80)
        got, expected = np.where(nan, 0, got), np.where(nan, 0, expected)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        real = ~np.isnan(got)
        np.testing.assert_array_equal(np.signbit(got[real]), np.signbit(expected[real]))


# ---- bfloat and half --------------------------------------------------------------------------------


@given(st.lists(words, min_size=1))
@example([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800001, 0xFF800000, 0x00008000, 0x80000001, 0x7FFFFFFF])
def test_a_float_becomes_the_nearest_bfloat(msl, bits):
    values = np.array(bits, np.uint32).view(np.float32)
    assert_same(msl("bfloat_of", values), store(values, "bfloat16"))


def test_every_bfloat_survives_a_round_trip_through_float(msl):
    every = np.arange(2**16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        assert_same(msl("float_of", every), widen(every, "bfloat16").astype(np.float32))
    assert_same(msl("bfloat_of", msl("float_of", every)), every)
    assert_same(msl("negated", every), every ^ 0x8000)


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("kind", ["bfloat", "half"])
@given(st.lists(st.tuples(patterns, patterns), min_size=1, max_size=50))
@example([(0x3F80, 0x3C00), (0x7BFF, 0x7BFF), (0x7F7F, 0x7F7F), (1, 1), (0x8000, 0), (0x7C00, 0xFC00)])
def test_small_floats_round_after_each_operation(msl, kind, name, pairs):
    x, y = np.array(pairs, np.uint16).T.copy().view(DTYPES[kind])
    expected = computed(getattr(np, name), kind, x, y)
    assert_same(msl(f"{kind}_{name}", x, y), expected)
    assert_same(msl(f"{kind}_{name}_assigned", x, y), expected)


@pytest.mark.parametrize("kind", ["bfloat", "half"])
@given(st.lists(st.tuples(patterns, patterns, patterns), min_size=1, max_size=50))
@example([(0x3C01, 0x3C01, 0xBC02), (0x3F81, 0x3F81, 0xBF82), (0x7BFF, 0x4000, 0xFBFF)])
def test_no_operation_keeps_excess_precision_for_the_next(msl, kind, triples):
    x, y, z = np.array(triples, np.uint16).T.copy().view(DTYPES[kind])
    product = computed(np.multiply, kind, x, y)
    assert_same(msl(f"{kind}_chain", x, y, z), computed(np.add, kind, product, z))


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("kind", ["bfloat", "half"])
def test_small_floats_mix_with_floats_and_integers(msl, kind, name):
    x, operation = sample(kind), getattr(np, name)
    wide = widen(x, "bfloat16").astype(np.float32) if kind == "bfloat" else x.astype(np.float32)
    y, k = sample("float", seed=1), sample("short")
    assert_same(msl(f"{kind}_{name}_float", x, y), operation(wide, y))
    in_kind = store(k.astype(np.float32), "bfloat16") if kind == "bfloat" else k.astype(np.float16)
    assert_same(msl(f"{kind}_{name}_int", x, k), computed(operation, kind, x, in_kind))


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("kind", ["bfloat", "half"])
@given(st.lists(st.tuples(patterns, patterns), min_size=1, max_size=50))
@example([(0, 0x8000), (0x7FC0, 0x7FC0), (0x7E00, 0), (5, 5)])
def test_small_floats_compare_as_numpy_s(msl, kind, name, pairs):
    x, y = np.array(pairs, np.uint16).T.copy().view(DTYPES[kind])
    np.testing.assert_array_equal(msl(f"{kind}_{name}", x, y), computed(getattr(np, name), kind, x, y))


def test_small_floats_count(msl):
    assert_same(msl("half_counted", np.array([0.5, 7], np.float16)), np.array([0.5, 7], np.float16))
    one = store(np.array([1.0, -3.0], np.float32), "bfloat16")
    assert_same(msl("bfloat_counted", one), one)


def test_literals_are_the_nearest_values(msl):
    halves = np.array([float(text) for text in LITERALS]).astype(np.float16)
    np.testing.assert_array_equal(exported(msl, "half_literals", np.float16, len(LITERALS)), halves)
    bfloats = store(np.array([float(text) for text in LITERALS], np.float32), "bfloat16")
    np.testing.assert_array_equal(exported(msl, "bfloat_literals", np.uint16, len(LITERALS)), bfloats)


def exported(msl, name, dtype, n):
    return np.frombuffer((ctypes.c_char * (n * np.dtype(dtype).itemsize)).in_dll(msl.handle, name), dtype)


@pytest.mark.parametrize(("name", "dtype"), [("half", np.float16), ("float", np.float32)])
def test_limits_are_numpy_s(msl, name, dtype):
    got, info = np.zeros(10, np.float32), np.finfo(dtype)
    msl.handle[f"{name}_limits"](ctypes.c_void_p(got.ctypes.data))
    values = [info.max, info.min, info.tiny, info.eps, info.smallest_subnormal, np.inf, np.nan]
    shape = [info.nmant + 1, info.maxexp, info.minexp + 1]  # C counts from a fraction in [0.5, 1)
    np.testing.assert_array_equal(got, np.array([*values, *shape], np.float32))


def test_limits_of_bfloat_are_those_of_its_bits(msl):
    got = np.zeros(10, np.float32)
    msl.handle["bfloat_limits"](ctypes.c_void_p(got.ctypes.data))
    bits = np.array([0x7F7F, 0xFF7F, 0x0080, 0x3C00, 0x0001, 0x7F80, 0x7FC0], np.uint16)
    np.testing.assert_array_equal(got[:7], widen(bits, "bfloat16"))
    assert list(got[7:]) == [8, 128, -125]


# ---- vectors ----------------------------------------------------------------------------------------


def test_sizes_and_alignments_are_metal_s(msl):
    got = exported(msl, "sizes", np.int64, 2 * len(SIZED)).reshape(-1, 2)
    for kind, (size, alignment) in zip(SIZED, got, strict=True):
        item, n = dtype_of(kind).itemsize, elements(kind)
        packed = kind.startswith("packed_")
        bytes_ = item * (n if packed or n != 3 else 4)
        assert (kind, size, alignment) == (kind, bytes_, item if packed else bytes_)


@pytest.mark.parametrize("name", [*ARITHMETIC, *COMPARISONS])
@pytest.mark.parametrize("kind", VECTORS)
def test_an_operator_works_on_each_element(msl, kind, name):
    x, y, scalar = sample(kind), sample(kind, seed=1), sample(kind.rstrip("234"))
    operation = getattr(np, name)
    assert_same(msl(f"{kind}_{name}", x, y), computed(operation, kind, x, y))
    if name in ARITHMETIC:
        splat = np.repeat(scalar[:, None], elements(kind), 1)
        assert_same(msl(f"{kind}_{name}_right", x, scalar), computed(operation, kind, x, splat))
        assert_same(msl(f"{kind}_{name}_left", scalar, x), computed(operation, kind, splat, x))
        assert_same(msl(f"{kind}_{name}_assigned", x, y), computed(operation, kind, x, y))


@pytest.mark.parametrize("kind", [kind for kind in VECTORS if kind[0] in "iul"])
def test_bits_are_worked_on_in_each_element(msl, kind):
    x, y = sample(kind), sample(kind, seed=1)
    for name in BITWISE:
        assert_same(msl(f"{kind}_{name}", x, y), getattr(np, name)(x, y))
    assert_same(msl(f"{kind}_invert", x), ~x)
    assert_same(msl(f"{kind}_left_shift", x), np.left_shift(x, np.array(3, x.dtype)))
    assert_same(msl(f"{kind}_right_shift", x), np.right_shift(x, np.array(2, x.dtype)))


def test_logic_is_of_each_element(msl):
    x, y, z = (sample("bool4", seed=seed) for seed in range(3))
    np.testing.assert_array_equal(msl("logic", x, y, z), x & ~y | z)


@pytest.mark.parametrize("split", SPLITS, ids=split_name)
def test_a_constructor_joins_its_arguments(msl, split):
    parts = [sample(of("int", n), seed=seed) for seed, n in enumerate(split)]
    joined = np.concatenate([part.reshape(len(part), -1) for part in parts], 1)
    np.testing.assert_array_equal(msl(split_name(split), *parts), joined)


@pytest.mark.parametrize("target", ["float3", "half3", "bfloat3", "int3"])
@pytest.mark.parametrize("source", ["float3", "half3", "bfloat3", "int3"])
def test_a_constructor_converts_each_element(msl, source, target):
    x = sample(source)
    values = widen(x, "bfloat16") if is_bfloat(source) else x
    expected = store(values.astype(np.float32), "bfloat16") if is_bfloat(target) else values.astype(dtype_of(target))
    assert_same(msl(f"{source}_to_{target}", x), expected)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_an_element_has_an_index_and_a_scalar_is_all_elements(msl, n):
    x, y, value = sample(f"float{n}"), np.arange(50) % n, sample("float")
    np.testing.assert_array_equal(msl(f"indexed{n}", x, y), x[np.arange(50), y])
    np.testing.assert_array_equal(msl(f"splat{n}", value), np.repeat(value[:, None], n, 1))
    expected = x.copy()
    expected[np.arange(50), y] = value
    np.testing.assert_array_equal(msl(f"replaced{n}", x, y, value), expected)


# ---- other forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKED)
def test_a_packed_vector_is_its_elements_side_by_side(msl, kind):
    plain = kind.removeprefix("packed_")
    x, y = sample(kind), sample(plain, seed=1)
    np.testing.assert_array_equal(msl(f"{kind}_unpacked", x), x)
    np.testing.assert_array_equal(msl(f"{kind}_packed", x), x)
    np.testing.assert_array_equal(msl(f"{kind}_sum", x, y), x + y)
    np.testing.assert_array_equal(msl(f"{kind}_last", x), x[:, -1])


@pytest.mark.parametrize(("source", "target"), BITS)
@given(st.data())
def test_as_type_keeps_the_bits(msl, source, target, data):
    n = elements(source) * dtype_of(source).itemsize
    raw = np.frombuffer(data.draw(st.binary(min_size=n, max_size=n)), dtype_of(source))
    got = msl(f"{source}_as_{target}", raw.reshape(1, -1) if elements(source) > 1 else raw)
    assert got.tobytes() == raw.tobytes()


def test_matrices_multiply_as_numpy_s(msl):
    m = generator(0).normal(size=(2, 4, 4)).astype(np.float32)
    v, out = sample("float4", 1), np.zeros((11, 4), np.float32)
    msl.handle.products(*(ctypes.c_void_p(array.ctypes.data) for array in (m, v, out)))
    first, second = m.astype(np.float64).transpose(0, 2, 1)  # MSL keeps columns
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(out[0], first @ v[0], **near)
    np.testing.assert_allclose(out[1], v[0] @ first, **near)
    np.testing.assert_allclose(out[2:6].T, first @ second, **near)
    np.testing.assert_allclose(out[6:10].T, first.T, **near)
    np.testing.assert_allclose(out[10], np.linalg.det(first), **near)

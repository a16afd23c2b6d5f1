"""The emulated Metal Standard Library's functions, on floats, against numpy and each other."""

import itertools

import numpy as np
import pytest

from baseline.elements import store, widen
from tests.msl import DTYPES, Function, Library

# name: (float64 reference, lowest and highest argument)
ONE_ARGUMENT = {
    "acos": (np.arccos, -1, 1),
    "acosh": (np.arccosh, 1, 1e4),
    "asin": (np.arcsin, -1, 1),
    "asinh": (np.arcsinh, -1e4, 1e4),
    "atan": (np.arctan, -1e3, 1e3),
    "atanh": (np.arctanh, -0.99, 0.99),
    "ceil": (np.ceil, -100, 100),
    "cos": (np.cos, -20, 20),
    "cosh": (np.cosh, -9, 9),
    "cospi": (lambda x: np.cos(np.pi * np.fmod(x, 2)), -9, 9),
    "exp": (np.exp, -9, 9),
    "exp2": (np.exp2, -9, 9),
    "exp10": (lambda x: 10.0**x, -4, 4),
    "fabs": (np.abs, -100, 100),
    "abs": (np.abs, -100, 100),
    "floor": (np.floor, -100, 100),
    "fract": (lambda x: x - np.floor(x), -100, 100),
    "log": (np.log, 1e-3, 1e4),
    "log2": (np.log2, 1e-3, 1e4),
    "log10": (np.log10, 1e-3, 1e4),
    "rint": (np.rint, -100, 100),
    "round": (lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x), -100, 100),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1e-3, 1e4),
    "saturate": (lambda x: np.clip(x, 0, 1), -2, 2),
    "sign": (np.sign, -2, 2),
    "sin": (np.sin, -20, 20),
    "sinh": (np.sinh, -9, 9),
    "sinpi": (lambda x: np.sin(np.pi * np.fmod(x, 2)), -9, 9),
    "sqrt": (np.sqrt, 0, 1e4),
    "tan": (np.tan, -1.5, 1.5),
    "tanh": (np.tanh, -5, 5),
    "tanpi": (lambda x: np.tan(np.pi * np.fmod(x, 1)), -0.45, 0.45),
    "trunc": (np.trunc, -100, 100),
}
TWO_ARGUMENTS = {
    "atan2": np.arctan2,
    "copysign": np.copysign,
    "divide": np.divide,
    "fdim": lambda x, y: np.maximum(x - y, 0),
    "fmax": np.fmax,
    "fmin": np.fmin,
    "max": np.fmax,
    "min": np.fmin,
    "fmod": np.fmod,
    "pow": lambda x, y: np.abs(x) ** y,
    "powr": lambda x, y: np.abs(x) ** y,
    "step": lambda x, y: np.where(y < x, 0.0, 1.0),
}
THREE_ARGUMENTS = {
    "fma": lambda x, y, z: x * y + z,
    "mix": lambda x, y, z: x + (y - x) * z,
    "clamp": lambda x, y, z: np.fmin(np.fmax(x, np.fmin(y, z)), np.fmax(y, z)),
    "max3": lambda x, y, z: np.fmax(np.fmax(x, y), z),
    "min3": lambda x, y, z: np.fmin(np.fmin(x, y), z),
    "median3": lambda x, y, z: np.median([x, y, z], axis=0),
    "smoothstep": lambda x, y, z: (lambda t: t * t * (3 - 2 * t))(
        np.clip((z - np.fmin(x, y)) / (np.fmax(x, y) - np.fmin(x, y)), 0, 1)
    ),
}
CALLS = {
    "pow": "pow(abs(x), y)",
    "powr": "powr(abs(x), y)",
    "clamp": "clamp(x, min(y, z), max(y, z))",
    "smoothstep": "smoothstep(min(x, y), max(x, y), z)",
}
KINDS = ["float", "half", "bfloat"]
WIDE = ["float3", "half4", "bfloat2"]
EPSILON = {"float": 2.0**-23, "half": 2.0**-10, "bfloat": 2.0**-7}
CLASSES = ["isfinite", "isinf", "isnan", "isnormal", "signbit"]
GEOMETRIC = {
    "dot": ("dot(x, y)", lambda x, y: (x * y).sum(-1)),
    "length": ("length(x)", lambda x, y: np.linalg.norm(x, axis=-1)),
    "length_squared": ("length_squared(x)", lambda x, y: (x * x).sum(-1)),
    "distance": ("distance(x, y)", lambda x, y: np.linalg.norm(x - y, axis=-1)),
    "distance_squared": ("distance_squared(x, y)", lambda x, y: ((x - y) ** 2).sum(-1)),
}
TURNED = {
    "normalize": ("normalize(x)", lambda x, y: x / np.linalg.norm(x, axis=-1, keepdims=True)),
    "reflect": ("reflect(x, y)", lambda x, y: x - 2 * (x * y).sum(-1, keepdims=True) * y),
    "faceforward": ("faceforward(x, y, x)", lambda x, y: np.where((x * y).sum(-1, keepdims=True) < 0, x, -x)),
}


def named(name, count):
    return CALLS.get(name, f"{name}({', '.join('xyz'[:count])})")


def functions():
    for kind in KINDS + WIDE:
        for count, table in ((1, ONE_ARGUMENT), (2, TWO_ARGUMENTS), (3, THREE_ARGUMENTS)):
            for name in table:
                yield Function(f"{name}_{kind}", (kind,) * count, kind, named(name, count))
    for kind in KINDS:
        for name in CLASSES:
            yield Function(f"{name}_{kind}", (kind,), "bool", f"{name}(x)")
        yield Function(f"nextafter_{kind}", (kind, kind), kind, "nextafter(x, y)")
        yield Function(f"ldexp_{kind}", (kind, "int"), kind, "ldexp(x, y)")
        yield Function(f"whole_{kind}", (kind,), kind, f"[&] {{ {kind} whole; modf(x, whole); return whole; }}()")
        yield Function(f"rest_{kind}", (kind,), kind, f"[&] {{ {kind} whole; return modf(x, whole); }}()")
        yield Function(f"fraction_{kind}", (kind,), kind, "[&] { int exponent; return frexp(x, exponent); }()")
        yield Function(f"exponent_{kind}", (kind,), "int", "[&] { int e; frexp(x, e); return e; }()")
    yield Function("sincos", ("float",), "float2", "[&] { float c; float s = sincos(x, c); return float2(s, c); }()")
    yield Function("ilogb", ("float",), "int", "ilogb(x)")
    yield Function("isunordered", ("float", "half"), "bool", "isunordered(x, y) && !isordered(x, y)")
    yield Function("select_each", ("float4", "float4", "bool4"), "float4", "select(x, y, z)")
    yield Function("select_one", ("half", "half", "bool"), "half", "select(x, y, z)")
    yield Function("all", ("bool3",), "bool", "all(x)")
    yield Function("any", ("bool3",), "bool", "any(x)")
    for kind in WIDE:
        for name, (expression, _) in GEOMETRIC.items():
            yield Function(f"{name}_{kind}", (kind, kind), kind.rstrip("234"), expression)
        for name, (expression, _) in TURNED.items():
            yield Function(f"{name}_{kind}", (kind, kind), kind, expression)
    yield Function("cross", ("float3", "float3"), "float3", "cross(x, y)")
    yield Function("dot_int3", ("int3", "int3"), "int", "dot(x, y)")


# Names must mean Metal's functions beside the C library's, with Metal's result types.
HELPERS = """
template <class A, class B>
constexpr bool same = is_same_v<A, B>;
static_assert(same<decltype(exp(1.0f)), float> && same<decltype(metal::exp(1.0f)), float>);
static_assert(same<decltype(metal::precise::exp(1.0h)), half> && same<decltype(metal::fast::exp(1.0bf)), bfloat>);
static_assert(same<decltype(precise::sin(float2())), float2> && same<decltype(fast::max(1.0f, 2.0f)), float>);
static_assert(same<decltype(abs(-1)), int> && same<decltype(abs(-1L)), long> && same<decltype(abs(-1.0f)), float>);
static_assert(same<decltype(abs(short(1))), short> && same<decltype(abs(1.0h)), half>);
static_assert(same<decltype(max(1.0f, 0)), float> && same<decltype(max(1.0h, 0)), half>);
static_assert(same<decltype(max(1.0h, 0.0f)), float> && same<decltype(max(1.0bf, 0)), bfloat>);
static_assert(same<decltype(min(1, 2u)), uint> && same<decltype(min(1u, 2u)), uint>);
static_assert(same<decltype(min(1u, 2ul)), ulong>);
static_assert(same<decltype(max(uchar(1), uchar(2))), uchar> && same<decltype(max(float4(), 0)), float4>);
static_assert(same<decltype(fma(1.0h, 1.0f, 1.0f)), float> && same<decltype(fma(1.0h, 1.0h, 1.0h)), half>);
static_assert(same<decltype(pow(1.0f, 2)), float> && same<decltype(clamp(1.0f, 0, 1)), float>);
static_assert(same<decltype(sqrt(2)), float> && same<decltype(floor(half2())), half2>);
static_assert(same<decltype(clamp(half4(), 0.0h, 1.0h)), half4>);
static_assert(same<decltype(mix(float3(), float3(), 0.5f)), float3>);
static_assert(same<decltype(isnan(float4())), bool4> && same<decltype(isinf(1.0h)), bool>);
static_assert(same<decltype(absdiff(1, 2)), uint> && same<decltype(dot(half4(), half4())), half>);
static_assert(M_PI_F == 3.14159274f && M_LN2_H == 0.6931472h && HALF_MAX == 65504.0h && isinf(INFINITY));
static_assert(max(1, 2) == 2 && min(1.0f, 2.0f) == 1.0f && clamp(5, 0, 3) == 3);
static_assert(popcount(7u) == 3 && abs(short(-2)) == 2);
"""


@pytest.fixture(scope="module")
def msl():
    return Library(functions(), HELPERS)


def in_kind(values, kind):
    return store(np.asarray(values, np.float32), "bfloat16") if kind == "bfloat" else np.asarray(values, DTYPES[kind])


def exact(values, kind):
    return widen(values, "bfloat16") if kind == "bfloat" else values.astype(np.float64)


def arguments(kind, count, low=-3.0, high=3.0, n=400):
    random = np.random.default_rng(count)
    return [in_kind(random.uniform(low, high, n), kind) for _ in range(count)]


def check(msl, name, kind, reference, values, ulps=4.0):
    """Within half a unit in the last place of the type, and within `ulps` of float's, in which a function works."""
    wide = [exact(value, kind) for value in values]
    expected, got = reference(*wide), exact(msl(f"{name}_{kind}", *values), kind)
    # Where terms cancel, their rounding errors stay.
    scale = np.maximum(np.abs(expected), 1e-2 * max(np.abs(value).max() for value in wide) if len(wide) > 1 else 1e-7)
    own_rounding = 0 if kind == "float" else 0.5 * EPSILON[kind] * np.abs(expected)
    subnormal = 2.0**-25 if kind == "half" else 0
    error = np.abs(got - expected)
    assert np.all(error <= own_rounding * (1 + 1e-4) + subnormal + ulps * EPSILON["float"] * scale), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_a_function_of_one_argument_is_numpy_s(msl, name, kind):
    reference, low, high = ONE_ARGUMENT[name]
    check(msl, name, kind, reference, arguments(kind, 1, low, high))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*TWO_ARGUMENTS, *THREE_ARGUMENTS])
def test_a_function_of_several_arguments_is_numpy_s(msl, name, kind):
    count, reference = (2, TWO_ARGUMENTS[name]) if name in TWO_ARGUMENTS else (3, THREE_ARGUMENTS[name])
    check(msl, name, kind, reference, arguments(kind, count), ulps=300 if name in ("fma", "mix") else 8)


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("name", [*ONE_ARGUMENT, *TWO_ARGUMENTS, *THREE_ARGUMENTS])
def test_a_vector_s_elements_are_the_scalars(msl, name, kind):
    scalar, n = kind[:-1], int(kind[-1])
    count = 1 if name in ONE_ARGUMENT else 2 if name in TWO_ARGUMENTS else 3
    low, high = ONE_ARGUMENT[name][1:] if count == 1 else (-3, 3)
    values = arguments(scalar, count, low, high, n=40 * n)
    got = msl(f"{name}_{kind}", *(value.reshape(-1, n) for value in values))
    np.testing.assert_array_equal(got.ravel(), msl(f"{name}_{scalar}", *values))


SPECIAL = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 65504.0, 6e-8, 2.0**-14, 1e-40, -1e-39, 2.0**-126])


@pytest.mark.parametrize("kind", KINDS)
def test_classes_of_numbers_are_numpy_s(msl, kind):
    with np.errstate(over="ignore"):
        x = in_kind(SPECIAL, kind)
    wide = exact(x, kind)
    for name in ("isfinite", "isinf", "isnan", "signbit"):
        np.testing.assert_array_equal(msl(f"{name}_{kind}", x), getattr(np, name)(wide), name)
    least = 2.0**-14 if kind == "half" else 2.0**-126
    np.testing.assert_array_equal(msl(f"isnormal_{kind}", x), np.isfinite(wide) & (np.abs(wide) >= least))


@pytest.mark.parametrize("name", ["max", "min", "fmax", "fmin"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_number_and_a_nan_the_number_is_the_greater_and_the_lesser(msl, kind, name):
    x, y = in_kind([np.nan, 1, np.nan, -np.inf], kind), in_kind([1, np.nan, np.nan, np.nan], kind)
    np.testing.assert_array_equal(exact(msl(f"{name}_{kind}", x, y), kind), [1, 1, np.nan, -np.inf])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_apart_and_together(msl, kind):
    (x,) = arguments(kind, 1, -100, 100)
    wide = exact(x, kind)
    fraction, exponent = np.frexp(wide)
    np.testing.assert_array_equal(exact(msl(f"fraction_{kind}", x), kind), fraction)
    np.testing.assert_array_equal(msl(f"exponent_{kind}", x), exponent)
    np.testing.assert_array_equal(exact(msl(f"ldexp_{kind}", in_kind(fraction, kind), exponent), kind), wide)
    rest, whole = np.modf(wide)
    np.testing.assert_array_equal(exact(msl(f"whole_{kind}", x), kind), whole)
    np.testing.assert_array_equal(exact(msl(f"rest_{kind}", x), kind), rest)


@pytest.mark.parametrize("kind", ["float", "half"])
def test_a_neighbour_is_numpy_s(msl, kind):
    values = np.array([0.0, -0.0, 1.0, -1.0, 2.0, 65504.0, -0.5, 6e-8], DTYPES[kind])
    x, y = np.array(list(itertools.product(values, repeat=2))).T.copy()
    np.testing.assert_array_equal(msl(f"nextafter_{kind}", x, y), np.nextafter(x, y))


def test_a_sine_has_its_cosine_and_a_float_its_exponent(msl):
    (x,) = arguments("float", 1, -20, 20)
    expected = np.stack([np.sin(x.astype(np.float64)), np.cos(x.astype(np.float64))], 1)
    np.testing.assert_allclose(msl("sincos", x), expected, atol=1e-7)
    np.testing.assert_array_equal(msl("ilogb", x), np.floor(np.log2(np.abs(x))))


def test_a_fused_multiply_add_of_halves_rounds_once(msl):
    x, y, z = np.array([[683.0], [3.0], [2.0**-24]], np.float16)  # x * y = 2049 is the middle of two halves
    assert msl("fma_half", x, y, z)[0] == 2050


def test_select_and_the_quantifiers(msl):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 30, 4)).astype(np.float32)
    chosen = random.random((30, 4)) < 0.5
    np.testing.assert_array_equal(msl("select_each", x, y, chosen), np.where(chosen, y, x))
    np.testing.assert_array_equal(
        msl("select_one", x[:, 0], y[:, 0], chosen[:, 0]), np.where(chosen[:, 0], y[:, 0], x[:, 0]).astype(np.float16)
    )
    every = np.array(list(itertools.product([False, True], repeat=3)))
    np.testing.assert_array_equal(msl("all", every), every.all(1))
    np.testing.assert_array_equal(msl("any", every), every.any(1))
    nan = np.array([0, np.nan, 0, np.nan])
    np.testing.assert_array_equal(msl("isunordered", nan, nan[[0, 0, 1, 1]]), [False, True, True, True])


# ---- geometry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("name", [*GEOMETRIC, *TURNED])
def test_geometry_is_numpy_s(msl, name, kind):
    scalar, n = kind[:-1], int(kind[-1])
    x, y = (value.reshape(-1, n) for value in arguments(scalar, 2, n=60 * n))
    expected = {**GEOMETRIC, **TURNED}[name][1](exact(x, scalar), exact(y, scalar))
    got = exact(msl(f"{name}_{kind}", x, y), scalar)
    # distance() first rounds the difference to the elements' type.
    np.testing.assert_allclose(got, expected, rtol=2 * EPSILON[scalar], atol=20 * 2.0**-23)


def test_products_of_vectors(msl):
    x, y = (value.reshape(-1, 3) for value in arguments("float", 2, n=90))
    np.testing.assert_allclose(msl("cross", x, y), np.cross(x.astype(np.float64), y), atol=1e-5)
    k = np.arange(30).reshape(-1, 3) - 7
    assert msl("dot_int3", k, k[::-1]).tolist() == (k * k[::-1]).sum(1).tolist()

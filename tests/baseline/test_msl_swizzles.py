"""Swizzles of the emulated Metal Standard Library's vectors: read and written."""

import itertools

import numpy as np
import pytest

from tests.msl import NAMES, Function, Library, letter

WRITABLE = ["".join(letters) for n in (2, 3, 4) for letters in itertools.permutations(NAMES, n)]
SWIZZLES = [*WRITABLE, "xx", "ww", "yxy", "zzz", "xxxx", "wzzw", "rg", "bgra", "abg"]


HELPERS = """
static_assert(is_same_v<decltype(float4().xy + float4().zw), float2> && is_same_v<decltype(-float4().xyz), float3>);
template <class A>
constexpr bool has_zw = requires(A a) { float2(a.zw); };
static_assert(has_zw<float4> && !has_zw<float3> && !has_zw<float2>);
"""


def swizzle_functions():
    for name in SWIZZLES:
        yield Function(f"get_{name}", ("float4",), f"float{len(name)}", f"x.{name}")
    for name in WRITABLE:
        n = len(name)
        yield Function(
            f"set_{name}", ("float4", f"float{n}"), "float4", f"[&] {{ float4 v = x; v.{name} = y; return v; }}()"
        )
        yield Function(
            f"copy_{name}", ("float4", "float4"), "float4", f"[&] {{ float4 v = x; v.{name} = y.{name}; return v; }}()"
        )
        yield Function(
            f"add_{name}", ("float4", f"float{n}"), "float4", f"[&] {{ float4 v = x; v.{name} += y; return v; }}()"
        )


def other_functions():
    for name in SWIZZLES:
        letters = "xyzw"[: len(name)]
        kept = ", ".join(f"a.{c}" for c in letters)
        yield Function(
            f"kept_{name}",
            ("float4",),
            f"float{len(name)}",
            f"[](const float4 v) {{ auto a = v.{name}; return float{len(name)}({kept}); }}(x)",
        )
    for name in ("xy", "zyx"):
        n = len(name)
        yield Function(f"packed_{name}", ("packed_float3",), f"float{n}", f"x.{name}")
        yield Function(
            f"set_packed_{name}",
            ("packed_float3", f"float{n}"),
            "packed_float3",
            f"[&] {{ packed_float3 v = x; v.{name} = y; return v; }}()",
        )


@pytest.fixture(scope="module")
def msl():
    return Library([*swizzle_functions(), *other_functions()], HELPERS, SWIZZLES)


def sample(n, seed):
    return np.random.default_rng(seed).normal(size=(5, n)).astype(np.float32)


@pytest.mark.parametrize("name", SWIZZLES)
def test_a_swizzle_gives_the_elements_that_it_names(msl, name):
    x = sample(4, 0)
    np.testing.assert_array_equal(msl(f"get_{name}", x), x[:, [letter(c) for c in name]])


@pytest.mark.parametrize("name", WRITABLE)
def test_a_swizzle_sets_the_elements_that_it_names_and_no_other(msl, name):
    x, y, other = sample(4, 0), sample(len(name), 1), sample(4, 2)
    at = [letter(c) for c in name]
    for form, value in (("set", y), ("copy", other[:, at]), ("add", x[:, at] + y)):
        expected = x.copy()
        expected[:, at] = value
        np.testing.assert_array_equal(msl(f"{form}_{name}", x, other if form == "copy" else y), expected, form)


@pytest.mark.parametrize("name", SWIZZLES)
def test_a_swizzle_that_is_kept_has_the_letters_of_a_vector(msl, name):
    x = sample(4, 0)
    np.testing.assert_array_equal(msl(f"kept_{name}", x), x[:, [letter(c) for c in name]])


@pytest.mark.parametrize("name", ["xy", "zyx"])
def test_a_packed_vector_has_swizzles(msl, name):
    x, y = sample(3, 0), sample(len(name), 1)
    at = [letter(c) for c in name]
    np.testing.assert_array_equal(msl(f"packed_{name}", x), x[:, at])
    expected = x.copy()
    expected[:, at] = y
    np.testing.assert_array_equal(msl(f"set_packed_{name}", x, y), expected)

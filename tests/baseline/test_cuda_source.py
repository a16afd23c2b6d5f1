"""Metal text as CUDA text: what the translator rewrites, what it leaves, and how a launch shapes the call.

That the result compiles and computes is checked on a CUDA machine, by experiments/cuda_table.py.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.contract import load_contract
from baseline.targets.cuda_source import (
    ATTRIBUTES,
    Argument,
    Text,
    _whole_simd_groups,
    metal_text,
    native_text,
    prelude,
    translate,
)
from baseline.variant import Choice, list_variants
from tests.kernel_call import KERNELS

INPUT, OUTPUT = Argument("x", "float16"), Argument("y", "float32", output=True)


def cuda(
    source: str, header: str = "", grid: tuple[int, ...] = (64, 1, 1), group: tuple[int, ...] = (32, 1, 1)
) -> Text:
    """A kernel with one input and one output; the header's text without the prelude."""
    text = translate(Text(header, source), [INPUT, OUTPUT], {}, grid, group)
    return Text(text.header.replace(prelude(), ""), text.source)


@pytest.mark.parametrize(
    ("metal", "expected"),
    [
        ("threadgroup float a[8];", "__shared__ float a[8];"),
        ("threadgroup vec<float, 4> a[2], b;", "__shared__ vec<float, 4> a[2], b;"),
        ("threadgroup atomic_uint count;", "__shared__ atomic_uint count;"),
        ("threadgroup float* p = a;", " float* p = a;"),
        ("const threadgroup float4 *p;", "const  float4 *p;"),
        ("f((threadgroup half4*)a);", "f(( half4*)a);"),
        ("const device uchar* p = (const device uchar*)x;", "const  uchar* p = (const  uchar*)x;"),
        ("threadgroup_barrier(mem_flags::mem_device);", "threadgroup_barrier(mem_flags::mem_device);"),
        ("half a = 1.5h + 2h;", "half a = half(1.5) + half(2);"),
        ("uint a = 0xfh;", "uint a = 0xfh;"),
        ("int a; // threadgroup float b[2];", "int a;"),
        ("#pragma clang loop unroll(full)", "#pragma unroll"),
    ],
)
def test_words(metal: str, expected: str) -> None:
    assert expected in cuda(metal).header.replace("__shared__  ", "__shared__ ")


def test_helpers_become_device_functions_and_overloads_by_address_space_one() -> None:
    header = """
    constexpr constant int A[2] = {1, 2};
    struct Pair { float a, b; };
    template <typename T, typename U = vec<T, 4>>
    vec<T, 4> widen(T a) { if (a > 0) { return a; } return 0; }
    float first(const device float* p) { return p[0]; }
    float first(const constant float* p) { return p[0]; }
    """
    text = cuda("y[0] = 1;", header).header
    assert text.count("float first(") == 1
    assert text.count("__device__") == 3  # widen, first, the body
    assert "template <typename T, typename U = vec<T, 4>> __device__" in " ".join(text.split())
    assert "struct Pair { float a, b; };" in text


def test_lines_stay_where_they_were() -> None:
    source = "int a; /* two\nlines */\nthreadgroup float b[2];\nint c;"
    body = cuda(source).header.split(") {\n", 1)[1]
    assert [line.split()[-1] for line in body.splitlines()[:4] if line] == ["a;", "b[2];", "c;"]
    assert body.splitlines()[3] == "int c;"


def test_arguments_and_attributes_that_the_body_names() -> None:
    text = cuda("y[thread_position_in_grid.x] = x[0] + x_shape[0];")
    assert "const metal::half* x, const int* x_shape, float* y, const uint3 thread_position_in_grid" in text.header
    assert "reinterpret_cast<const metal::half*>(x), x_shape.data()" in text.source
    assert ATTRIBUTES["thread_position_in_grid"][1] in text.source
    assert "x_strides" not in text.header + text.source
    strided = cuda("y[0] = x[x_strides[0]];")
    assert "const long* x_strides" in strided.header
    assert "x_strides.data()" in strided.source


def test_a_scalar_input_is_a_reference() -> None:
    text = translate(
        Text("", "y[0] = n;"), [Argument("n", "int32", 0), OUTPUT], {"D": 4, "U": "bfloat16"}, (1, 1, 1), (1, 1, 1)
    )
    assert "const metal::int32_t& n" in text.header
    assert "constexpr int D = 4;\nusing U = bfloat;" in text.header
    assert "*reinterpret_cast<const metal::int32_t*>(n)" in text.source


@given(
    grid=st.tuples(*[st.integers(1, 100)] * 3),
    group=st.tuples(st.sampled_from([1, 2, 5, 32, 64]), st.integers(1, 4), st.integers(1, 4)),
)
def test_ragged_grids(grid: tuple[int, int, int], group: tuple[int, int, int]) -> None:
    text = cuda("y[0] = 1;", grid=grid, group=group).source
    block = [min(pair) for pair in zip(grid, group, strict=True)]
    even = all(size % width == 0 for size, width in zip(grid, block, strict=True))
    assert ("even_geometry" in text) == even
    assert ("if (!at.exists) return;" in text) != even
    last = [size % width or width for size, width in zip(grid, block, strict=True)]
    if _whole_simd_groups(grid, group):
        assert math.prod(block) % 32 == math.prod(last) % 32 == 0


@pytest.mark.parametrize("op", ["qmatvec", "expert_gate_up", "expert_down", "gated_delta_step"])
def test_each_op_has_a_plain_cuda_variant_and_a_fast_one(op: str) -> None:
    variants = {v.name: v for v in list_variants(KERNELS, op, "cuda") if v.target == "cuda"}
    assert len(variants) >= 2
    assert all(len(variant.hypothesis) > 80 for variant in variants.values())
    assert {v.parent for v in variants.values() if v.name != "plain"} <= variants.keys()


def test_texts_name_the_variants_lines() -> None:
    contract = load_contract(KERNELS / "qmatvec")
    for variant in list_variants(KERNELS, "qmatvec", "cuda"):
        make = metal_text if variant.target == "metal" else native_text
        text = make(Choice.defaults(variant), contract, contract.bench[0].constants)
        assert f'#line {variant.body_line} "{variant.path.name}"\n{variant.body}' in text.source
        assert "int N = 12288;" in text.header


def test_a_watermarked_text_returns_before_all_that_the_variant_does() -> None:
    contract = load_contract(KERNELS / "qmatvec")
    for variant in list_variants(KERNELS, "qmatvec", "cuda"):
        make = metal_text if variant.target == "metal" else native_text
        plain, marked = (
            make(Choice.defaults(variant), contract, contract.bench[0].constants, watermark)
            for watermark in (False, True)
        )
        first, rest = marked.source.split("\n", 1)
        assert first.endswith(" return;") and plain.source.split("\n", 1) == [first.removesuffix(" return;"), rest]
        assert plain.header == marked.header

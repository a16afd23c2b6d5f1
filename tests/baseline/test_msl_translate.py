"""The translator of Metal source to C++: what it rewrites, what it leaves alone and what it refuses, by itself."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.targets.compiler import BuildError
from baseline.targets.msl_translate import swizzles, translate


def shared(kind: str, name: str) -> str:
    return f'auto& {name} = nf_threadgroup<{kind}>("{name}", [&] {{}});'


VARIABLES = {
    "threadgroup float x;": [shared("float", "x")],
    "threadgroup float x[8];": [shared("float[8]", "x")],
    "threadgroup float x [ 8 ] ;": [shared("float[ 8 ]", "x")],
    "threadgroup float a[8], b, c[N + 1];": [
        shared("float[8]", "a"),
        shared("float", "b"),
        shared("float[N + 1]", "c"),
    ],
    "threadgroup half tile[2][32 + 1];": [shared("half[2][32 + 1]", "tile")],
    "threadgroup float x[(A < B) ? 1 : 2];": [shared("float[(A < B) ? 1 : 2]", "x")],
    "threadgroup float x[A == B || C >= D && E != F];": [shared("float[A == B || C >= D && E != F]", "x")],
    "threadgroup float x[sizeof(float4) * 2];": [shared("float[sizeof(float4) * 2]", "x")],
    "threadgroup unsigned int x[2];": [shared("unsigned int[2]", "x")],
    "threadgroup metal::array<float, 4> x[2];": [shared("metal::array<float, 4>[2]", "x")],
    "threadgroup array<vec<T, 4>, (A > B) ? 1 : 2> x, y;": [
        shared("array<vec<T, 4>, (A > B) ? 1 : 2>", "x"),
        shared("array<vec<T, 4>, (A > B) ? 1 : 2>", "y"),
    ],
    "threadgroup atomic<int> x;": [shared("atomic<int>", "x")],
    "threadgroup atomic_uint x[4];": [shared("atomic_uint[4]", "x")],
    "threadgroup struct Tile x;": [shared("struct Tile", "x")],
    "threadgroup typename T::tile x[2];": [shared("typename T::tile[2]", "x")],
    "threadgroup decltype(y[0]) x[2];": [shared("decltype(y[0])[2]", "x")],
    "threadgroup const float x[8];": [shared("const float[8]", "x")],
    "threadgroup float const x[8];": [shared("float const[8]", "x")],
    "threadgroup volatile uint x;": [shared("volatile uint", "x")],
    "const threadgroup float x[8];": ["const", shared("float[8]", "x")],
    "threadgroup alignas(16) float x[8];": [shared("float[8]", "x")],
    "alignas(16) threadgroup float x[8];": [shared("float[8]", "x")],
    "threadgroup alignas(sizeof(float4)) half x[8], y;": [shared("half[8]", "x"), shared("half", "y")],
    "threadgroup /* by row */ float x[8] /* ; */;": [shared("float[8]", "x")],
    "if (a) { threadgroup float x; }": ["if (a) {", shared("float", "x"), "}"],
    "#pragma unroll\nthreadgroup float x;": ["#pragma unroll", shared("float", "x")],
    "#endif // threads;\n threadgroup float x;": ["#endif // threads;", shared("float", "x")],
}

TYPES = [
    "threadgroup float* p = x;",
    "threadgroup float *p, *q;",
    "threadgroup const float* p = x + 1;",
    "const threadgroup float* const p = x;",
    "threadgroup float4* p = (threadgroup float4*)x;",
    "threadgroup float4& p = *(threadgroup float4*)(x + 4);",
    "auto p = reinterpret_cast<threadgroup float4*>(x);",
    "auto p = reinterpret_cast<const threadgroup float4*>(x);",
    "threadgroup float (*row)[8] = tile;",
    "threadgroup float (&row)[8] = tile[1];",
    "threadgroup array<float, 4>* p = x;",
    "threadgroup auto& p = x[0];",
    "for (threadgroup float* p = x; p < end; ++p) {}",
    "float f(threadgroup T (&x)[N], threadgroup float* y, const threadgroup half* z) { return 0; }",
    "template <class T> threadgroup T* f(threadgroup T* x) { return x; }",
    "template <typename T, typename P = threadgroup T*> struct S { threadgroup T* p; const threadgroup T& r; };",
    "Loader<T, threadgroup T> loader(x);",
    "using P = threadgroup float*;",
    "inline threadgroup float& at(threadgroup float* x, int i) { return x[i]; }",
    "#define POINTER(T) threadgroup T*",
]

REFUSED = {
    "threadgroup float x[2] = {1, 2};": "threadgroup float x[2] = {1, 2}",
    "threadgroup float x = 0;": "threadgroup float x = 0",
    "threadgroup float x[2]{};": "threadgroup float x[2]{}",
    "threadgroup Tile x(3);": "threadgroup Tile x(3)",
    "threadgroup float x[8], *p;": "threadgroup float x[8], *p",
    "static threadgroup float x[8];": "threadgroup float x[8]",
    "float threadgroup x[8];": "threadgroup x[8]",
    "threadgroup x[8];": "threadgroup x[8]",
    "#define SHARED threadgroup": "a macro with `threadgroup`",
    "#define SHARED(n) \\\n  threadgroup float n[8]": "a macro with `threadgroup`",
    '#include "helpers.h"': '#include "helpers.h"',
    "#  include <vector>  // for nothing": "#  include <vector>",
    "texture2d<float> image;": "texture2d",
    "depth2d_array<float> image;": "depth2d_array",
    "constexpr sampler s(coord::normalized);": "sampler",
    "constant int N [[function_constant(0)]];": "function_constant",
    "simdgroup_event event;": "simdgroup_event",
    "simdgroup_async_copy_2d(a, b);": "simdgroup_async_copy_2d",
    "imageblock<T> block;": "imageblock",
    'os_log_default.log("x"); os_log("y");': "os_log",
    "raytracing::intersector<> i;": "intersector",
    "intersection_query<> q;": "intersection_query",
    "tensor_handle t;": "tensor_handle",
    "visible_function_table<int(int)> t;": "visible_function_table",
}

UNTOUCHED = [
    "",
    "// threadgroup float x[8];",
    "/* threadgroup float x; texture2d */",
    '/*\n#include "x.h"\n*/',
    'const char* s = "threadgroup float x; sampler";',
    "char c = '\"'; int texture = 1, sampler_index = 0, intersection_count = 0, tensor_size = 3, depth = 2;",
    "threadgroup_barrier(mem_flags::mem_threadgroup);",
    "threadgroup_position_in_grid.x;",
    "int threadgroups = 1; my_threadgroup x;",
    "#if 0\ndon't, it's\n#endif",
    "#error don't\nint a = 1'000;",
    '#pragma METAL internals : "enable"',
    "float y = 1.0e-5f + .5h + 0x1p-3f; a->xy = b.z; a.xyz [0]; a << 2 >> 1;",
    "\\",
    "'",
    '"',
    "/* never closed",
]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("source", VARIABLES)
def test_a_threadgroup_variable_is_a_reference_to_shared_storage(source: str) -> None:
    assert flat(translate(source, "body")) == " ".join(VARIABLES[source])


@pytest.mark.parametrize("source", TYPES)
def test_before_a_pointer_or_reference_threadgroup_is_left_out(source: str) -> None:
    assert translate(source, "body") == re.sub(r"\bthreadgroup\b", "", source)


@pytest.mark.parametrize("source", REFUSED)
def test_what_is_not_emulated_is_named_with_its_line(source: str) -> None:
    with pytest.raises(BuildError) as caught:
        translate(f"int a;\n\n{source}", "rows.metal", 10)
    assert str(caught.value).startswith("rows.metal:12: error: ")
    assert REFUSED[source] in str(caught.value)
    assert "not emulated" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("double d = x;", "double"),
        ("#define REAL double", "double"),
        ("#define LARGER(a, b) std::max(a, b)", "std"),
        ("y = std::max(a, b);", "std"),
        ("using namespace std;", "std"),
        ("try { f(); } catch (...) {}", "try"),
        ("throw 1;", "throw"),
        ("struct S { virtual float f(); };", "virtual"),
        ("float* p = new float[3];", "new"),
        ("delete p;", "delete"),
        ('asm volatile("nop");', "asm"),
        ("auto p = dynamic_cast<T*>(q);", "dynamic_cast"),
        ("typeid(x);", "typeid"),
        ("thread_local int n;", "thread_local"),
        ("static float q = 0;", "static"),
        ("static uint4 counts[8];", "static"),
        ("static metal::array<float, 4> a, b;", "static"),
    ],
)
def test_what_metal_lacks_is_named_with_its_line(source: str, construct: str) -> None:
    with pytest.raises(BuildError, match=f"rows.metal:12: error: Metal has no `{construct}`"):
        translate(f"int a;\n\n{source}", "rows.metal", 10)


@pytest.mark.parametrize(
    "source",
    [
        "S(const S&) = delete;",
        "float std = deviation(x); y = std / doubled;",
        "static inline float f(float a) { return a; }",
        "static constexpr constant float table[2] = {1, 2};",
        "constexpr static int N = 3;",
        "static const float4 zero;",
        "static_assert(N > 0);",
        "a.renew(1); // double, new, std::max",
    ],
)
def test_what_metal_has_stays_as_it_is(source: str) -> None:
    assert translate(source, "body") == source


def test_a_threadgroup_variable_outside_a_function_is_refused() -> None:
    helper = "void f() {\n  threadgroup float x[8];\n}\n"
    translate(helper, "header", function=False)
    with pytest.raises(BuildError, match=r"header:4: error: `threadgroup float y` is not emulated"):
        translate(f"{helper}threadgroup float y;", "header", function=False)


@pytest.mark.parametrize("source", UNTOUCHED)
def test_text_that_declares_nothing_shared_stays_as_it_is(source: str) -> None:
    assert translate(source, "body") == source


def test_includes_of_metal_go_and_leave_their_lines() -> None:
    source = (
        '#include <metal_stdlib>\n  #include <metal_simdgroup>\n#include <simd/simd.h>\n#include "metal_math"\nint a;'
    )
    assert translate(source, "header", function=False) == "\n  \n\n\nint a;"


def test_an_attribute_of_that_name_is_no_address_space() -> None:
    source = "[[kernel]] void f(threadgroup float* s [[threadgroup(0)]]) {}"
    assert translate(source, "header", function=False) == source.replace("threadgroup float", " float")


def test_a_declaration_over_several_lines_keeps_the_lines_behind_it() -> None:
    source = "threadgroup float a[8], // first\n  b\n  [4];\nint c;"
    lines = translate(source, "body").split("\n")
    assert len(lines) == 4
    assert (lines[0].count("nf_threadgroup"), lines[3]) == (2, "int c;")


PIECES = [*VARIABLES, *TYPES, *UNTOUCHED[:-4], "threadgroup", "float x[2]", ";", "{", "}", "(", ")", "<", ">", "[", "]"]
PIECES += [
    ",",
    "*",
    "&",
    "=",
    "\n",
    "\\\n",
    "// c\n",
    "/* c\n */",
    " ",
    "alignas(16)",
    "#define A \\\n b\n",
    "1e+",
    ".5",
    "x.xy",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_every_line_keeps_its_number_in_any_text(source: str) -> None:
    try:
        result = translate(source, "body")
    except BuildError as error:
        assert re.match(r"body:\d+: error: ", str(error))
        assert 1 <= int(str(error).split(":")[1]) <= source.count("\n") + 1
    else:
        assert result.count("\n") == source.count("\n")


@given(st.text(alphabet="threadgoup xyw.[]{}()<>;,*&=/\\\"'#\n1", max_size=40))
def test_no_text_breaks_the_translator(source: str) -> None:
    with contextlib.suppress(BuildError):
        assert translate(source, "body").count("\n") == source.count("\n")


def test_the_swizzles_that_sources_name_are_listed_once() -> None:
    text = swizzles("a.xy = b . zyx; c->wzyx; d.rgb; e.x; f.xyq; g.xg; 1.xf; h.s;", "i.xy; j.ba;")
    assert text == "#define NF_SWIZZLES(S) S(ba, 2, 3) S(rgb, 0, 1, 2) S(wzyx, 3, 2, 1, 0) S(xy, 0, 1) S(zyx, 2, 1, 0)"
    assert swizzles("") == "#define NF_SWIZZLES(S) "


@pytest.mark.parametrize(
    ("metal", "translated"),
    [
        ("1.0", "1.0f"),
        (".5", ".5f"),
        ("2.", "2.f"),
        ("1e-3", "1e-3f"),
        ("1.5E+2", "1.5E+2f"),
        ("0.25bf", "bfloat(0.25f)"),
        *((same, same) for same in ("1.0f", "1.0h", "7", "7u", "0x1p-3f", "0xe1", "a.x", "m[1].x", "1e3f")),
    ],
)
def test_no_literal_is_a_double(metal: str, translated: str) -> None:
    assert translate(f"x = {metal};", "body") == f"x = {translated};"


@pytest.mark.parametrize("behind", ["", ";", " == b", " <= b", " != b", " * b", ") = b", "\n + b", " > b"])
def test_a_swizzle_that_is_read_becomes_a_vector(behind: str) -> None:
    assert translate(f"a . xy{behind}", "body") == f"a . xy->*nf_plain{behind}"
    assert translate(f"a->bgra{behind}", "body") == f"a->bgra->*nf_plain{behind}"


@pytest.mark.parametrize("behind", [" = b", " += b", "/**/ <<= b", " %= b", "[0]", ".x", "->x", "(b)", "++", " --"])
def test_a_swizzle_that_is_written_or_taken_apart_stays_one(behind: str) -> None:
    assert translate(f"a.xy{behind}", "body") == f"a.xy{behind}"

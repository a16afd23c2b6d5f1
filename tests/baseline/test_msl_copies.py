"""Loads and stores of whole values around a call: the sanitizer sees each, though the call is the only statement.

A compiler instruments assignments, not calls: `*p = f()` and `f(*p)` count only if the value passes through one.
"""

import mlx.core as mx
import pytest

from baseline.targets.emulated import metal_kernel

HEADER = """
struct Pair { float a; float b; };
struct Eight { float e[8]; };
typedef array<half, 6> Six;

TEMPLATE
__attribute__((noinline)) T same(T x, int turns) {
  T kept = x;
  for (int i = 0; i < turns; ++i) {
    T other = kept;
    kept = x;
    x = other;
  }
  return kept;
}
"""
TYPES = {
    "bfloat": (mx.bfloat16, 1),
    "bfloat4": (mx.bfloat16, 4),
    "half2": (mx.float16, 2),
    "float4": (mx.float32, 4),
    "packed_float3": (mx.float32, 3),
    "packed_bfloat4": (mx.bfloat16, 4),
    "complex64_t": (mx.float32, 2),
    "float2x2": (mx.float32, 4),
    "Pair": (mx.float32, 2),
    "Eight": (mx.float32, 8),
    "Six": (mx.float16, 6),
}
SOURCE = """
uint i = thread_position_in_grid.x;
device KIND* to = (device KIND*)out;
const device KIND* from = (const device KIND*)x;
int turns = n[0];
KIND loaded = same(from[i + n[1]], turns);
to[i + n[2]] = same(loaded, turns);
"""
LOAD, STORE = (number for number, line in enumerate(SOURCE.split("\n"), 1) if "same(" in line)


def run(kind, skip_read=0, skip_write=0, count=8, function="template <class T>"):
    """Copies `count` values, each through two calls; what it reads and writes may begin behind the first value."""
    dtype, width = TYPES[kind]
    kernel = metal_kernel(
        name="msl_copies",
        input_names=["x", "n"],
        output_names=["out"],
        source=SOURCE.replace("KIND", kind),
        header=HEADER.replace("TEMPLATE", function),
    )
    x = mx.arange(1, 1 + count * width).astype(dtype)
    (out,) = kernel(
        inputs=[x, mx.array([3, skip_read, skip_write])],
        grid=(count, 1, 1),
        threadgroup=(count, 1, 1),
        output_shapes=[x.shape],
        output_dtypes=[dtype],
    )
    mx.eval(out)
    return x, out


@pytest.mark.parametrize("kind", TYPES)
def test_a_result_that_is_stored_counts_as_written(kind):
    x, out = run(kind)
    assert mx.array_equal(out, x)


@pytest.mark.parametrize("function", ["typedef Pair T;", "typedef Pair T; static", "typedef Pair T; inline"])
def test_a_function_of_any_linkage_counts(function):
    x, out = run("Pair", function=function)
    assert mx.array_equal(out, x)


@pytest.mark.parametrize("kind", TYPES)
def test_a_load_for_a_call_is_found_outside_its_buffer(kind):
    with pytest.raises(RuntimeError, match=f"body:{LOAD}: out of bounds"):
        run(kind, skip_read=1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_store_of_a_call_is_found_outside_its_buffer(kind):
    with pytest.raises(RuntimeError, match=f"body:{STORE}: out of bounds"):
        run(kind, skip_write=1)


@pytest.mark.parametrize(("kind", "bytes_"), [("float4", 4), ("bfloat4", 2), ("packed_float3", 2)])
def test_a_vector_is_loaded_at_a_multiple_of_its_alignment(kind, bytes_):
    kernel = metal_kernel(
        name="msl_alignment",
        input_names=["x"],
        output_names=["out"],
        source=f"*(device {kind}*)out = *(const device {kind}*)((const device char*)x + {bytes_});",
    )
    (out,) = kernel(
        inputs=[mx.zeros(16)], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(4,)], output_dtypes=[mx.float32]
    )
    with pytest.raises(RuntimeError, match="body:1: misaligned"):
        mx.eval(out)

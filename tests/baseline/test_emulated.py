"""The drop-in for mx.fast.metal_kernel: what MLX's documentation says of it, on arrays compared with numpy."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baseline.elements import Array
from baseline.targets import emulated
from baseline.targets.emulated import metal_kernel
from baseline.targets.msl_source import ATTRIBUTES
from tests.launches import TWICE, I, launch, same

SLOW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A build cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


BEHIND = metal_kernel("behind", ["x"], ["y"], f"{I}y[i] = x[i + 1];")


# ---- arguments -------------------------------------------------------------------------------------


def test_a_kernel_needs_an_output() -> None:
    with pytest.raises(ValueError, match="Must specify at least one output"):
        metal_kernel("none", ["x"], [], "")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"math_mode": "wild"}, "Expected math_mode to be"), ({"speed": "1"}, "Unknown compile option `speed`")],
)
def test_compile_options_are_checked(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metal_kernel("options", ["x"], ["y"], "", compile_options=options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "Expected `inputs` to have size 1 but got size 0"),
        ({"output_shapes": [(8,), (8,)]}, "Expected `output_shapes` to have size 1 but got size 2"),
        ({"output_dtypes": []}, "Expected `output_dtypes` to have size 1 but got size 0"),
        ({"grid": (8, 1)}, "three sizes"),
        ({"threadgroup": (8, 1, 1, 1)}, "three sizes"),
        ({"grid": (-8, 1, 1)}, "none of them negative"),
        ({"template": [("T", 1.5)]}, "Invalid template argument"),
        ({"template": [("T", "float")]}, "Invalid template argument"),
        ({"template": [("T", mx.float64)]}, "float64 is no type of Metal's"),
        ({"output_dtypes": [mx.float64]}, "float64 is no type of Metal's"),
    ],
)
def test_a_launch_is_checked(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "inputs": [mx.zeros(8)],
        "output_shapes": [(8,)],
        "output_dtypes": [mx.float32],
        "grid": (8, 1, 1),
        "threadgroup": (8, 1, 1),
    }
    with pytest.raises(ValueError, match=message):
        TWICE(**(arguments | change))


def test_a_threadgroup_is_cut_to_the_grid_but_not_allowed_more_than_1024_threads() -> None:
    same(launch(TWICE, mx.ones(8), threadgroup=(1024, 1, 1)), np.full(8, 2.0))
    with pytest.raises(RuntimeError, match="threadgroup size: a threadgroup of 1025 threads"):
        mx.eval(launch(TWICE, mx.ones(8), threadgroup=(1025, 1, 1)))


# ---- what the kernel gets --------------------------------------------------------------------------


def test_template_values_are_types_integers_and_booleans() -> None:
    source = f"{I}if (FLAG) y[i] = T(x[i]) * N; else y[i] = T(x[i]) + N;"
    kernel = metal_kernel("template", ["x"], ["y"], source)
    x = mx.array([0.5, 1.75, -2.5])
    for kind, convert in ((mx.int32, np.trunc), (mx.float32, np.array)):
        values = convert(np.array(x))
        for flag, expected in ((True, values * -3), (False, values - 3)):
            out = launch(kernel, x, template=[("T", kind), ("N", -3), ("FLAG", flag)])
            same(out, expected)


DTYPES = [*emulated.TYPES]


def test_every_dtype_goes_in_and_out() -> None:
    names = [f"a{n}" for n in range(len(DTYPES))]
    source = I + "\n".join(f"{name}_out[i] = {name}[i];" for name in names)
    kernel = metal_kernel("copy", names, [f"{name}_out" for name in names], source)
    inputs = [mx.array(np.arange(9) % 5 * (1 + 2j if d == mx.complex64 else 1)).astype(d) for d in DTYPES]
    outputs = kernel(
        inputs=inputs, output_shapes=[(9,)] * len(names), output_dtypes=DTYPES, grid=(9, 1, 1), threadgroup=(4, 1, 1)
    )
    for array, found in zip(inputs, outputs, strict=True):
        assert found.dtype == array.dtype
        assert mx.array_equal(found, array).item()


def test_scalars_come_by_reference_and_python_numbers_as_mlx_takes_them() -> None:
    source = f"{I}y[i] = x[i] * factor + offset + few[1] + (flag ? 0.5f : 0.0f);"
    kernel = metal_kernel("scalars", ["x", "factor", "offset", "flag", "few"], ["y"], source)
    x = np.arange(20, dtype=np.float32)
    out = launch(kernel, mx.array(x), 3, mx.array(0.25), True, mx.array([1, 8]))
    same(out, x * 3 + 8.75)


def test_inputs_come_in_the_address_space_that_mlx_gives_them(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = metal_kernel(
        "spaces", ["one", "few", "many"], ["out"], f"{I}out[i] = few[0] + one + many[i] + few_ndim;", header="// mine\n"
    )
    launch(kernel, 1.0, mx.ones(7), mx.ones(8), shape=(8,), dtype=mx.float16, template=[("T", mx.int8)], verbose=True)
    text = capsys.readouterr().out
    for line in (
        "Generated source code for `spaces`:",
        "// mine\ntemplate <typename T>\n[[kernel]] void ",
        "const constant float& one [[buffer(0)]],",
        "const constant float* few [[buffer(1)]],",
        "const constant int& few_ndim [[buffer(2)]],",
        "const device float* many [[buffer(3)]],",
        "device float16_t* out [[buffer(4)]],",
        "uint3 thread_position_in_grid [[thread_position_in_grid]]) {",
        "out[i] = few[0] + one + many[i] + few_ndim;",
    ):
        assert line in text
    assert "few_shape" not in text


def thread_values(grid: Sequence[int], group: Sequence[int]) -> dict[str, Array]:
    """Every attribute by position in the grid [x, y, z], from the geometry alone."""
    size = np.array([min(g, n) for g, n in zip(group, grid, strict=True)])
    position = np.moveaxis(np.indices(tuple(grid)), 0, -1)
    tile = position // size
    actual = np.minimum(size, np.array(grid) - tile * size)
    inside = position - tile * size
    index = inside[..., 0] + actual[..., 0] * (inside[..., 1] + actual[..., 1] * inside[..., 2])
    count, whole = actual.prod(-1), int(size.prod())
    like = np.zeros_like(position)
    return {
        "dispatch_quadgroups_per_threadgroup": np.full_like(index, -(-whole // 4)),
        "dispatch_simdgroups_per_threadgroup": np.full_like(index, -(-whole // 32)),
        "dispatch_threads_per_threadgroup": like + size,
        "grid_origin": like,
        "grid_size": like + np.array(grid),
        "quadgroup_index_in_threadgroup": index // 4,
        "quadgroups_per_threadgroup": -(-count // 4),
        "simdgroup_index_in_threadgroup": index // 32,
        "simdgroups_per_threadgroup": -(-count // 32),
        "thread_execution_width": np.full_like(index, 32),
        "thread_index_in_quadgroup": index % 4,
        "thread_index_in_simdgroup": index % 32,
        "thread_index_in_threadgroup": index,
        "thread_position_in_grid": position,
        "thread_position_in_threadgroup": inside,
        "threadgroup_position_in_grid": tile,
        "threadgroups_per_grid": like + -(-np.array(grid) // size),
        "threads_per_grid": like + np.array(grid),
        "threads_per_simdgroup": np.full_like(index, 32),
        "threads_per_threadgroup": actual,
    }


SCALARS = [name for name, (kind, _) in ATTRIBUTES.items() if kind == "uint"]
VECTORS = [name for name, (kind, _) in ATTRIBUTES.items() if kind == "uint3"]
ATTRIBUTE_SOURCE = "\n".join(
    [
        "const uint3 p = thread_position_in_grid;",
        "const size_t at = (size_t(p.x) * threads_per_grid.y + p.y) * threads_per_grid.z + p.z;",
        *(f"scalars[at * {len(SCALARS)} + {n}] = {name};" for n, name in enumerate(SCALARS)),
        *(
            f"vectors[(at * {len(VECTORS)} + {n}) * 3 + {axis}] = {name}[{axis}];"
            for n, name in enumerate(VECTORS)
            for axis in range(3)
        ),
    ]
)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4))


@SLOW
@given(SIZES, st.tuples(st.integers(1, 48), st.integers(1, 5), st.integers(1, 4)))
def test_every_attribute_follows_from_grid_and_threadgroup(
    grid: tuple[int, int, int], group: tuple[int, int, int]
) -> None:
    kernel = metal_kernel("attributes", [], ["scalars", "vectors"], ATTRIBUTE_SOURCE)
    scalars, vectors = kernel(
        inputs=[],
        output_shapes=[(*grid, len(SCALARS)), (*grid, len(VECTORS), 3)],
        output_dtypes=[mx.uint32] * 2,
        grid=grid,
        threadgroup=group,
    )
    expected = thread_values(grid, group)
    assert sorted(expected) == sorted(ATTRIBUTES)
    for n, name in enumerate(SCALARS):
        np.testing.assert_array_equal(np.array(scalars)[..., n], expected[name], err_msg=name)
    for n, name in enumerate(VECTORS):
        np.testing.assert_array_equal(np.array(vectors)[..., n, :], expected[name], err_msg=name)


def test_init_value_is_what_outputs_start_with() -> None:
    kernel = metal_kernel("some", ["x"], ["y"], f"{I}if (i % 2) y[i] = T(x[i]);")
    x = np.arange(12, dtype=np.float32)
    for dtype, start, initial in ((mx.float32, 7, 7), (mx.int8, -1, -1), (mx.bool_, 1, True), (mx.bfloat16, 0.5, 0.5)):
        out = launch(kernel, mx.array(x), dtype=dtype, template=[("T", dtype)], init_value=start).astype(mx.float32)
        values = (x != 0).astype(np.float32) if dtype == mx.bool_ else x
        same(out, np.where(np.arange(12) % 2, values, initial))
    with pytest.raises(RuntimeError, match="unwritten output: 6 of 12"):
        mx.eval(launch(kernel, mx.array(x), template=[("T", mx.float32)]))


def test_atomic_outputs_accumulate_over_threadgroups() -> None:
    source = f"{I}atomic_fetch_add_explicit(&y[int(x[i])], 1, memory_order_relaxed);"
    kernel = metal_kernel("histogram", ["x"], ["y"], source, atomic_outputs=True)
    x = np.random.default_rng(0).integers(0, 5, 300)
    for dtype in (mx.int32, mx.uint32, mx.float32):
        out = launch(kernel, mx.array(x), shape=(5,), dtype=dtype, grid=(300, 1, 1), init_value=0)
        same(out, np.bincount(x, minlength=5))


def test_helpers_of_the_header_take_threadgroup_pointers() -> None:
    header = """
    #include <metal_stdlib>
    using namespace metal;
    template <typename T, int N>
    T total(threadgroup const T* values) {
        T sum = 0;
        for (int j = 0; j < N; ++j) sum += values[j];
        return sum;
    }
    void put(threadgroup float* values, uint at, float value) { values[at] = value; }
    """
    source = """
    threadgroup float values[32];
    put(values, thread_index_in_threadgroup, x[thread_position_in_grid.x]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[thread_position_in_grid.x] = total<float, 32>(values);
    """
    x = np.arange(64, dtype=np.float32)
    out = launch(metal_kernel("helped", ["x"], ["y"], source, header), mx.array(x))
    same(out, np.repeat(x.reshape(2, 32).sum(1), 32))


# ---- the graph -------------------------------------------------------------------------------------


def test_the_outputs_of_a_launch_with_findings_are_nan() -> None:
    source = f"threadgroup float a[32]; {I}a[i % 32] = x[i]; y[i] = a[(i + 1) % 32];"
    out = launch(metal_kernel("races", ["x"], ["y"], source), mx.ones(64))
    with pytest.raises(RuntimeError, match="race"):
        mx.eval(out)
    assert np.isnan(np.array(out)).all()


def test_a_launch_is_lazy_and_part_of_the_graph() -> None:
    x = mx.arange(40).astype(mx.float32)
    bad = launch(BEHIND, x)  # no finding before the evaluation
    same(launch(TWICE, x + 1) * 3 - 1, (np.arange(40) + 1) * 6 - 1)
    with pytest.raises(RuntimeError, match=r"metal_kernel behind: body:2: out of bounds: .* of `x`"):
        mx.eval(bad)


def test_a_compiled_function_may_launch() -> None:
    x = mx.arange(40).astype(mx.float32)
    compiled = mx.compile(lambda a: mx.exp(launch(TWICE, a / 8)) + a)
    for _ in range(2):
        np.testing.assert_allclose(compiled(x), np.exp(np.arange(40) / 4) + np.arange(40), rtol=1e-6)


def test_launches_follow_each_other_asynchronously() -> None:
    x = mx.ones(64)
    for _ in range(10):
        x = launch(TWICE, x)
        mx.async_eval(x)  # type: ignore[no-untyped-call]
    same(x, np.full(64, 1024.0))


def evaluate_later(array: Any) -> None:
    mx.async_eval(array)  # type: ignore[no-untyped-call]
    mx.synchronize()


@pytest.mark.parametrize("evaluate", [mx.eval, evaluate_later])
def test_the_next_launch_works_after_one_that_failed(evaluate: Callable[[mx.array], Any]) -> None:
    x = mx.ones(40)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of bounds"):
            evaluate(launch(BEHIND, x))
        same(launch(TWICE, x), np.full(40, 2.0))


def test_any_stream_is_taken_for_one_of_the_cpu() -> None:
    for stream in (None, mx.cpu, mx.gpu, mx.default_stream(mx.cpu), mx.new_stream(mx.cpu)):
        same(launch(TWICE, mx.ones(40), stream=stream), np.full(40, 2.0))


def test_several_threads_launch_at_once() -> None:
    def work(number: int) -> None:
        with mx.stream(mx.cpu):
            for _ in range(5):
                same(launch(TWICE, mx.full((200,), number)), np.full(200, 2.0 * number))
                with pytest.raises(RuntimeError, match="of `x`"):
                    mx.eval(launch(BEHIND, mx.full((64,), number)))

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(work, range(4)))) == 4


def test_many_launches_need_no_more_memory_than_one() -> None:
    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines()) if Path("/proc/self/maps").exists() else 0

    barrier = "threadgroup_barrier(mem_flags::mem_threadgroup);"
    kernel = metal_kernel(
        "staged", ["x"], ["y"], f"threadgroup float a[32]; {I}a[i % 32] = x[i];\n{barrier} y[i] = a[i % 32];"
    )
    mx.eval(launch(kernel, mx.ones(256)))
    before = mappings()
    for _ in range(50):
        mx.eval(launch(kernel, mx.ones(256)))
        with pytest.raises(RuntimeError):
            mx.eval(launch(BEHIND, mx.ones(64)))
    assert mappings() <= before + 80


def test_several_outputs_and_inputs_without_elements() -> None:
    kernel = metal_kernel(
        "pair", ["x", "none"], ["low", "high"], f"{I}low[i] = x[i] - none_shape[0]; high[i] = x[i] + 1;"
    )
    low, high = kernel(
        inputs=[mx.ones(40), mx.zeros((0, 3))],
        output_shapes=[(40,), (4, 10)],
        output_dtypes=[mx.float32, mx.int32],
        grid=(40, 1, 1),
        threadgroup=(16, 1, 1),
    )
    same(low, np.ones(40))
    same(high, np.full((4, 10), 2))
    assert launch(TWICE, mx.zeros((0,))).shape == (0,)

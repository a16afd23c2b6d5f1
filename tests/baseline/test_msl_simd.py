"""SIMD-group and quad functions of the emulated Metal Standard Library, against the lanes written out in Python."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.targets.emulated import metal_kernel

WIDTH = {"simd": 32, "quad": 4}
THREADS = [64, 40, 5]  # whole SIMD groups; one that is a quarter full; a quad of one lane
FLOATS = [mx.float32, mx.float16, mx.bfloat16]


def each_lane(name, expressions, inputs, setup=""):
    """A kernel of one threadgroup whose row f of `out` is what each thread gets for the f-th expression in `value`."""
    rows = "\n".join(f"out[{f} * n + i] = {expression};" for f, expression in enumerate(expressions))
    body = f"uint i = thread_index_in_threadgroup;\nuint n = threads_per_threadgroup.x;\n{setup}\n{rows}\n"
    return metal_kernel(name=name, input_names=inputs, output_names=["out"], source=body)


def rows_of(kernel, names, inputs, threads, dtype, template=()):
    (out,) = kernel(
        inputs=inputs,
        template=list(template),
        grid=(threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(len(names), threads)],
        output_dtypes=[dtype],
    )
    mx.eval(out)
    return dict(zip(names, out, strict=True))


def groups(values, width):
    return [values[begin : begin + width] for begin in range(0, len(values), width)]


def typed(name):
    return f"{name}(T(data[i]))"


REDUCTIONS = [f"{group}_{function}" for group in WIDTH for function in ("sum", "product", "min", "max")]
REDUCE = each_lane("msl_reduce", [typed(name) for name in REDUCTIONS], ["data"])
PREFIXES = [
    f"{group}_prefix_{kind}_{function}"
    for group in WIDTH
    for kind in ("inclusive", "exclusive")
    for function in ("sum", "product")
]
PREFIX = each_lane("msl_prefix", [typed(name) for name in PREFIXES], ["data"])


def butterfly(values, operation, identity):
    """The tree of lanes that differ in bit 0, then in bit 1 and so on, each step rounded by MLX to the values' type."""
    width = 1 << (len(values) - 1).bit_length()
    values = mx.concatenate([values, mx.full((width - len(values),), identity, dtype=values.dtype)])
    while len(values) > 1:
        values = operation(values[0::2], values[1::2])
        mx.eval(values)  # no fusing: each step is rounded
    return values


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [*FLOATS, mx.int32, mx.uint8])
def test_reductions_follow_the_tree_of_the_butterfly(dtype, threads):
    rng = np.random.default_rng(threads)
    if dtype in FLOATS:
        data = mx.array(rng.uniform(0.5, 1.5, threads) * rng.choice([-1, 1], threads)).astype(dtype)
    else:
        data = mx.array(rng.integers(0, 100, threads)).astype(dtype)
    got = rows_of(REDUCE, REDUCTIONS, [data], threads, dtype, [("T", dtype)])
    references = {"sum": (mx.add, 0), "product": (mx.multiply, 1), "min": (mx.minimum, None), "max": (mx.maximum, None)}
    for name in REDUCTIONS:
        group, function = name.split("_")
        operation, identity = references[function]
        want = [
            mx.repeat(butterfly(part, operation, part[0] if identity is None else identity), len(part))
            for part in groups(data, WIDTH[group])
        ]
        assert mx.array_equal(got[name], mx.concatenate(want)), name


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [*FLOATS, mx.int32])
def test_prefixes_accumulate_the_lanes_below(dtype, threads):
    rng = np.random.default_rng(threads)
    values = rng.choice([-2, -1, 1, 1, 1, 1], threads)  # exact in every type and order
    got = rows_of(PREFIX, PREFIXES, [mx.array(values).astype(dtype)], threads, dtype, [("T", dtype)])
    for name in PREFIXES:
        group, _, kind, function = name.split("_")
        accumulate, identity = (np.cumsum, 0) if function == "sum" else (np.cumprod, 1)
        want = []
        for part in groups(values, WIDTH[group]):
            result = accumulate(part)
            want.append(result if kind == "inclusive" else np.concatenate([[identity], result[:-1]]))
        assert np.array_equal(np.array(got[name].astype(mx.float32)), np.concatenate(want)), name


BITWISE = [f"{group}_{function}" for group in WIDTH for function in ("and", "or", "xor")]
BITS = each_lane("msl_bits", [f"{name}(data[i])" for name in BITWISE], ["data"])


@pytest.mark.parametrize("threads", THREADS)
def test_bitwise_reductions(threads):
    data = np.random.default_rng(0).integers(0, 2**32, threads, dtype=np.uint32) | np.uint32(0x80000001)
    got = rows_of(BITS, BITWISE, [mx.array(data)], threads, mx.uint32)
    for name in BITWISE:
        group, function = name.split("_")
        reduce = getattr(np, f"bitwise_{function}").reduce
        want = [np.full(len(part), reduce(part)) for part in groups(data, WIDTH[group])]
        assert np.array_equal(np.array(got[name]), np.concatenate(want)), name


class Lane:
    """One lane of a group, and what it may read: Metal's definitions of the functions that move values."""

    def __init__(self, lane, width, data, filling, delta, modulo):
        self.lane, self.width, self.delta, self.modulo = lane, width, delta, modulo
        self.data = [*data, *[0] * (width - len(data))]  # a lane that does not exist reads as zero
        self.filling = [*filling, *[0] * (width - len(data))]

    def within(self, lane):
        return self.data[lane] if 0 <= lane < self.width else self.data[self.lane]

    def window(self, offset, modulo):
        """`modulo` lanes of data and beside them as many of the filling: the element `offset` from this lane."""
        begin = self.lane // modulo * modulo
        at = self.lane - begin + offset
        return (self.data if 0 <= at < modulo else self.filling)[begin + at % modulo]


MOVES = {  # function: its arguments in the kernel, what a lane gets
    "broadcast": ("v, d", lambda at: at.data[at.delta]),
    "broadcast_first": ("v", lambda at: at.data[0]),
    "shuffle": ("v, (i * 5 + d) % W", lambda at: at.data[(at.lane * 5 + at.delta) % at.width]),
    "shuffle_xor": ("v, d", lambda at: at.data[at.lane ^ at.delta]),
    "shuffle_up": ("v, d", lambda at: at.within(at.lane - at.delta)),
    "shuffle_down": ("v, d", lambda at: at.within(at.lane + at.delta)),
    "shuffle_rotate_up": ("v, d", lambda at: at.data[(at.lane - at.delta) % at.width]),
    "shuffle_rotate_down": ("v, d", lambda at: at.data[(at.lane + at.delta) % at.width]),
    "shuffle_and_fill_up": ("v, f, d", lambda at: at.window(-at.delta, at.width)),
    "shuffle_and_fill_down": ("v, f, d", lambda at: at.window(at.delta, at.width)),
}
MODULO_MOVES = {
    "shuffle_and_fill_up": ("v, f, d % m, m", lambda at: at.window(-(at.delta % at.modulo), at.modulo)),
    "shuffle_and_fill_down": ("v, f, d % m, m", lambda at: at.window(at.delta % at.modulo, at.modulo)),
}
ALL_MOVES = [*MOVES.items(), *MODULO_MOVES.items()]
MOVE = {
    group: each_lane(
        f"msl_move_{group}",
        [f"{group}_{name}({arguments})" for name, (arguments, _) in ALL_MOVES],
        ["data", "fill", "args"],
        f"const uint W = {width};\nint v = data[i], f = fill[i];\nushort d = args[0], m = args[1];",
    )
    for group, width in WIDTH.items()
}


@settings(max_examples=25)
@given(st.data(), st.sampled_from(list(WIDTH)), st.sampled_from(THREADS))
def test_moves_read_the_lane_that_metal_says(draw, group, threads):
    width = WIDTH[group]
    lanes = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=threads, max_size=threads)
    data, filling = draw.draw(lanes), draw.draw(lanes)
    delta = draw.draw(st.integers(0, width - 1))
    modulo = draw.draw(st.sampled_from([m for m in (2, 4, 8, 16, 32) if m <= width]))
    inputs = [
        mx.array(data, dtype=mx.int32),
        mx.array(filling, dtype=mx.int32),
        mx.array([delta, modulo], dtype=mx.uint32),
    ]
    got = rows_of(MOVE[group], range(len(ALL_MOVES)), inputs, threads, mx.int32)
    for row, (name, (_, result)) in enumerate(ALL_MOVES):
        want = [
            result(Lane(lane, width, part, fill, delta, modulo))
            for part, fill in zip(groups(data, width), groups(filling, width), strict=True)
            for lane in range(len(part))
        ]
        assert got[row].tolist() == want, name


VOTES = {
    "{0}_ballot(v)": lambda votes, lane: sum(vote << at for at, vote in enumerate(votes)),
    "{0}_active_threads_mask()": lambda votes, lane: 2 ** len(votes) - 1,
}
QUESTIONS = {
    "{0}_all(v)": lambda votes, lane: all(votes),
    "{0}_any(v)": lambda votes, lane: any(votes),
    "{0}_ballot(v).all()": lambda votes, lane: all(votes),
    "{0}_ballot(v).any()": lambda votes, lane: any(votes),
    "{0}_is_first()": lambda votes, lane: lane == 0,
    "{0}_is_helper_thread()": lambda votes, lane: False,
    "{0}_sum(v)": lambda votes, lane: sum(votes),  # a bool counts as an int
}
VOTE = {
    group: each_lane(
        f"msl_vote_{group}",
        [f"uint({group}_vote::vote_t({vote.format(group)}))" for vote in VOTES]
        + [f"uint({question.format(group)})" for question in QUESTIONS],
        ["data"],
        "bool v = data[i];",
    )
    for group in WIDTH
}


@settings(max_examples=15)
@given(st.data(), st.sampled_from(list(WIDTH)), st.sampled_from(THREADS), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_votes_count_only_lanes_that_exist(draw, group, threads, share):
    seed = draw.draw(st.integers(0, 2**32 - 1))
    votes = (np.random.default_rng(seed).random(threads) < share).tolist()
    results = {**VOTES, **QUESTIONS}
    got = rows_of(VOTE[group], list(results), [mx.array(votes)], threads, mx.uint32)
    for name, result in results.items():
        want = [int(result(part, lane)) for part in groups(votes, WIDTH[group]) for lane in range(len(part))]
        assert got[name].tolist() == want, name


WIDE = """
uint i = thread_index_in_threadgroup;
float3 v = float3(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
half4 h = half4(half(v.x), half(v.y), half(v.z), half(1));
float3 sum = simd_sum(v), most = simd_max(v), moved = simd_shuffle_xor(v, 5);
half4 halves = simd_sum(h);
for (int k = 0; k < 3; ++k) {
  vectors[i * 12 + k] = sum[k];
  vectors[i * 12 + 3 + k] = most[k];
  vectors[i * 12 + 6 + k] = moved[k];
  vectors[i * 12 + 9 + k] = float(halves[k]);
}
longs[i * 2] = simd_shuffle_down(longs_in[i], 3);
longs[i * 2 + 1] = simd_shuffle(longs_in[i], 31 - i);
flags[i] = simd_shuffle_up(longs_in[i] > 0, 1);
bfloats[i] = simd_shuffle(bfloat16_t(v.x), 7);
"""


def test_vectors_and_wide_types():
    """For a vector each function is that of its elements; MLX adds 64-bit integers and bool to what can be shuffled."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((32, 3)).astype(np.float32)
    longs = rng.integers(-(2**62), 2**62, 32)
    kernel = metal_kernel(
        name="msl_wide",
        input_names=["x", "longs_in"],
        output_names=["vectors", "longs", "flags", "bfloats"],
        source=WIDE,
    )
    vectors, moved, flags, bfloats = kernel(
        inputs=[mx.array(x), mx.array(longs)],
        grid=(32, 1, 1),
        threadgroup=(32, 1, 1),
        output_shapes=[(32, 4, 3), (32, 2), (32,), (32,)],
        output_dtypes=[mx.float32, mx.int64, mx.bool_, mx.bfloat16],
    )
    lane = np.arange(32)
    vectors = np.array(vectors)
    for k in range(3):
        column = mx.array(x[:, k])
        assert (vectors[:, 0, k] == butterfly(column, mx.add, 0).item()).all()
        assert (vectors[:, 3, k] == butterfly(column.astype(mx.float16), mx.add, 0).item()).all()
    assert np.array_equal(vectors[:, 1], np.broadcast_to(x.max(axis=0), (32, 3)))
    assert np.array_equal(vectors[:, 2], x[lane ^ 5])
    down = np.where(lane + 3 < 32, lane + 3, lane)
    assert np.array_equal(np.array(moved), np.stack([longs[down], longs[::-1]], axis=1))
    assert np.array_equal(np.array(flags), longs[np.maximum(lane - 1, 0)] > 0)
    assert mx.array_equal(bfloats, mx.broadcast_to(mx.array(x[7, 0]).astype(mx.bfloat16), (32,)))


def test_a_nan_loses_against_a_number():
    data = mx.array([float("nan"), 2.0, -1.0, float("nan"), *[float("nan")] * 4])
    names = ["quad_min", "quad_max"]
    got = rows_of(each_lane("msl_nan", [f"{name}(data[i])" for name in names], ["data"]), names, [data], 8, mx.float32)
    for name, want in zip(names, (-1.0, 2.0), strict=True):
        assert got[name].tolist()[:4] == [want] * 4
        assert np.isnan(np.array(got[name])[4:]).all()

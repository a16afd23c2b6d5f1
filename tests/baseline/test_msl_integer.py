"""The emulated Metal Standard Library's functions of integers, against Python's unbounded ones."""

import itertools

import numpy as np
import pytest

from tests.msl import DTYPES, Function, Library

INTEGERS = ["char", "uchar", "short", "uint", "int", "long", "ulong"]
FUNCTIONS_OF_BITS = ["clz", "ctz", "popcount", "reverse_bits"]
INTEGER_PAIRS = ["absdiff", "addsat", "subsat", "hadd", "rhadd", "mulhi", "rotate", "max", "min"]
INTEGER_TRIPLES = ["madhi", "madsat", "clamp", "max3", "median3"]


def integer_functions():
    for kind in INTEGERS:
        for name in FUNCTIONS_OF_BITS:
            yield Function(f"{name}_{kind}", (kind,), kind, f"{name}(x)")
        for name in INTEGER_PAIRS:
            yield Function(f"{name}_{kind}", (kind, kind), kind, f"{name}(x, y)")
        for name in INTEGER_TRIPLES:
            expression = "clamp(x, min(y, z), max(y, z))" if name == "clamp" else f"{name}(x, y, z)"
            yield Function(f"{name}_{kind}", (kind, kind, kind), kind, expression)
        yield Function(f"extract_{kind}", (kind, "uint", "uint"), kind, "extract_bits(x, y, z)")
        yield Function(f"insert_{kind}", (kind, kind, "uint", "uint"), kind, "insert_bits(x, y, z, w)")
    yield Function("popcount_uint3", ("uint3",), "uint3", "popcount(x)")
    yield Function("mulhi_int4", ("int4", "int4"), "int4", "mulhi(x, y)")


@pytest.fixture(scope="module")
def msl():
    return Library(integer_functions())


class Ints:
    """Python's unbounded integers as the reference for a type of so many bits."""

    def __init__(self, kind):
        self.dtype = np.dtype(DTYPES[kind])
        self.info = np.iinfo(self.dtype)
        self.bits = self.info.bits

    def wrap(self, value):
        """The value that the type's bits hold."""
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if value > self.info.max else value

    def saturate(self, value):
        return min(max(value, int(self.info.min)), int(self.info.max))

    def raw(self, value):
        return value & ((1 << self.bits) - 1)

    def samples(self, count):
        """The limits and random values; bytes are walked in steps of five, from limit to limit."""
        random = np.random.default_rng(count)
        if self.bits == 8 and count < 3:
            every = range(int(self.info.min), int(self.info.max) + 1, 5)
            return [list(column) for column in zip(*itertools.product(every, repeat=count), strict=True)]
        edges = [int(self.info.min), int(self.info.max), 0, 1, int(self.info.max) // 2]
        tuples = list(itertools.product(edges, repeat=count))
        drawn = random.integers(self.info.min, self.info.max, (300, count), dtype=self.dtype, endpoint=True)
        return [list(column) for column in zip(*tuples, *drawn.tolist(), strict=True)]


def reference(name, ints):
    wrap, saturate, raw, bits = ints.wrap, ints.saturate, ints.raw, ints.bits

    def rotate(x, y):
        by = raw(y) % bits
        return wrap(raw(x) << by | raw(x) >> (bits - by))

    return {
        "clz": lambda x: bits - raw(x).bit_length(),
        "ctz": lambda x: (raw(x) & -raw(x)).bit_length() - 1 if x else bits,
        "popcount": lambda x: raw(x).bit_count(),
        "reverse_bits": lambda x: wrap(int(f"{raw(x):0{bits}b}"[::-1], 2)),
        "absdiff": lambda x, y: wrap(abs(x - y)),
        "addsat": lambda x, y: saturate(x + y),
        "subsat": lambda x, y: saturate(x - y),
        "hadd": lambda x, y: (x + y) >> 1,
        "rhadd": lambda x, y: (x + y + 1) >> 1,
        "mulhi": lambda x, y: wrap(x * y >> bits),
        "rotate": rotate,
        "max": max,
        "min": min,
        "madhi": lambda x, y, z: wrap((x * y >> bits) + z),
        "madsat": lambda x, y, z: saturate(x * y + z),
        "clamp": lambda x, y, z: min(max(x, min(y, z)), max(y, z)),
        "max3": max,
        "median3": lambda x, y, z: sorted((x, y, z))[1],
    }[name]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("name", FUNCTIONS_OF_BITS + INTEGER_PAIRS + INTEGER_TRIPLES)
def test_a_function_of_integers_is_python_s(msl, name, kind):
    count = 1 if name in FUNCTIONS_OF_BITS else 2 if name in INTEGER_PAIRS else 3
    ints = Ints(kind)
    columns = ints.samples(count)
    expected = [reference(name, ints)(*values) for values in zip(*columns, strict=True)]
    got = msl(f"{name}_{kind}", *(np.array(column, ints.dtype) for column in columns))
    assert got.tolist() == expected


@pytest.mark.parametrize("kind", INTEGERS)
def test_a_field_of_bits_is_taken_out_and_put_in(msl, kind):
    ints, random = Ints(kind), np.random.default_rng(0)
    fields = [(offset, n) for offset in range(ints.bits) for n in range(ints.bits - offset + 1)]
    offset, n = np.array(fields).T
    x, y = random.integers(ints.info.min, ints.info.max, (2, len(fields)), dtype=ints.dtype, endpoint=True)

    def extracted(value, at, size):
        field = ints.raw(value) >> at & ((1 << size) - 1)
        signed = ints.info.min < 0 and size and field >> (size - 1)
        return field - (1 << size) if signed else field

    def inserted(value, other, at, size):
        mask = (1 << size) - 1 << at
        return ints.wrap(ints.raw(value) & ~mask | ints.raw(other) << at & mask)

    assert msl(f"extract_{kind}", x, offset, n).tolist() == list(
        map(extracted, x.tolist(), offset.tolist(), n.tolist())
    )
    expected = list(map(inserted, x.tolist(), y.tolist(), offset.tolist(), n.tolist()))
    assert msl(f"insert_{kind}", x, y, offset, n).tolist() == expected


def test_vectors_of_integers_are_their_scalars(msl):
    x, y = np.array(Ints("int").samples(2), np.int32)[:, :324]
    np.testing.assert_array_equal(msl("mulhi_int4", x.reshape(-1, 4), y.reshape(-1, 4)).ravel(), msl("mulhi_int", x, y))
    bits = x.view(np.uint32)
    np.testing.assert_array_equal(msl("popcount_uint3", bits.reshape(-1, 3)).ravel(), msl("popcount_uint", bits))

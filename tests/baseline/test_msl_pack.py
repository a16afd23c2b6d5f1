"""The emulated Metal Standard Library's vectors as integers: packed and unpacked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.msl import Function, Library

FORMS = {"unorm4x8": np.uint8, "snorm4x8": np.int8, "unorm2x16": np.uint16, "snorm2x16": np.int16}


def pack_functions():
    for form in FORMS:
        n = form[5]
        yield Function(f"pack_{form}", (f"float{n}",), "uint", f"pack_float_to_{form}(x)")
        yield Function(f"unpack_{form}", ("uint",), f"float{n}", f"unpack_{form}_to_float(x)")
        yield Function(f"pack_half_{form}", (f"half{n}",), "uint", f"pack_half_to_{form}(x)")
        yield Function(f"unpack_half_{form}", ("uint",), f"half{n}", f"unpack_{form}_to_half(x)")


@pytest.fixture(scope="module")
def msl():
    return Library(pack_functions())


def packed(values, dtype):
    """Each element times the integer's maximum, to the nearest integer; the first one in the lowest bits."""
    least = -1 if np.issubdtype(dtype, np.signedinteger) else 0
    whole = np.rint(np.clip(np.nan_to_num(values, nan=0), least, 1) * np.float32(np.iinfo(dtype).max))
    return np.ascontiguousarray(whole.astype(dtype)).view("<u4")[:, 0]


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_elements_are_packed_to_the_nearest_integer(msl, form, data):
    n = int(form[5])
    x = data.draw(arrays(np.float32, (4, n), elements=st.floats(-1.5, 1.5, width=16) | st.just(np.nan)))
    np.testing.assert_array_equal(msl(f"pack_{form}", x), packed(x, FORMS[form]))
    np.testing.assert_array_equal(msl(f"pack_half_{form}", x.astype(np.float16)), packed(x, FORMS[form]))


@pytest.mark.parametrize("form", FORMS)
@given(st.binary(min_size=16, max_size=16))
def test_what_was_unpacked_is_a_fraction_of_the_greatest_integer(msl, form, raw):
    dtype = FORMS[form]
    values = np.frombuffer(raw, dtype).reshape(4, -1).astype(np.float32) / np.float32(np.iinfo(dtype).max)
    values = np.maximum(values, -1)
    bits = np.frombuffer(raw, "<u4")
    np.testing.assert_array_equal(msl(f"unpack_{form}", bits), values)
    np.testing.assert_array_equal(msl(f"unpack_half_{form}", bits), values.astype(np.float16))

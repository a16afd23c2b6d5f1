"""Records hold no word that is not JSON's, and are read back as they were."""

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import strict_json
from harness.candidate import Failure, Speedup, Stage, Status
from harness.confirm import Confirmed
from harness.judge import Verdict

VALUES = st.recursive(st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.tuples(inner))


def read(text):
    return json.loads(text, parse_constant=pytest.fail)


@given(value=st.dictionaries(st.text(), VALUES))
def test_every_record_is_json(value):
    assert read(strict_json.dumps(value)) == json.loads(json.dumps(strict_json.finite(value)))


def test_null_stands_for_what_is_no_number():
    found = strict_json.finite({"max_kl": math.inf, "rows": [math.nan, 1.5], "n": 3})
    assert found == {"max_kl": None, "rows": [None, 1.5], "n": 3}


@given(value=st.floats(0, 9), low=st.floats(0, 9), high=st.floats(0, 9) | st.just(math.inf))
def test_a_speedup_is_read_back(value, low, high):
    measured = Speedup(value, low, high)
    assert Speedup.from_json(read(strict_json.dumps(asdict(measured)))) == measured


def test_a_confirmation_without_an_upper_bound_is_read_back():
    confirmed = Confirmed({"qmatvec": Speedup(2.0, 1.5, math.inf)}, Speedup(1.1, 0.0, math.inf), 1.0, 2.0, 0.0)
    assert Confirmed.from_json(read(strict_json.dumps(asdict(confirmed)))) == confirmed


def test_a_verdict_is_json():
    verdict = Verdict(Stage.CHECK, failure=Failure(Status.WRONG, "y[0] is nan"))
    assert read(strict_json.dumps(asdict(verdict)))["failure"]["status"] == "wrong"

"""What the champion makes of the same, beside what the candidate made of it."""

import numpy as np
import pytest

from baseline.contract import load_contract
from harness.candidate import Status
from harness.draws import Draw
from harness.paths import data_folder
from harness.witness import Witness

LIMITS = {"y": 1e-3}
DRAW = Draw(4, 0, 7)


def outputs(launches=4):
    return {"y": np.random.default_rng(0).standard_normal((launches, 1, 12288)).astype(np.float32)}


@pytest.fixture
def witness():
    return Witness(load_contract(data_folder("kernels") / "qmatvec"))


def compared(witness, made, champion):
    witness.see(DRAW, made)
    assert witness.waits and witness.draw() == DRAW
    witness.compare(champion)
    assert not witness.waits
    return witness.failure(LIMITS)


def test_two_that_are_each_within_the_tolerance_agree(witness):
    made = outputs()
    assert compared(witness, made, {"y": made["y"] + np.float32(1.9e-3)}) is None


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_one_launch_of_many_that_is_something_else_is_found(witness, value):
    made = outputs()
    made["y"][2] = value
    failure = compared(witness, made, outputs())
    assert failure.status is Status.WRONG and f"] is {value:.7g}, the champion's " in failure.reason
    assert failure.reason.endswith("tolerance 2.00e-03")


def test_a_later_repetition_that_is_right_excuses_none(witness):
    made = outputs()
    made["y"][0] = 0
    compared(witness, made, outputs())
    assert compared(witness, outputs(), outputs()) is not None


def test_what_is_not_remembered_is_no_witness_of_anything(witness):
    witness.see(DRAW, {})
    assert not witness.waits and witness.failure({}) is None


def test_what_changes_after_it_was_seen_is_too_late(witness):
    made = outputs()
    right = outputs()
    made["y"][1] = 0
    witness.see(DRAW, made)
    made["y"][1] = right["y"][1]
    witness.compare(right)
    assert witness.failure(LIMITS) is not None

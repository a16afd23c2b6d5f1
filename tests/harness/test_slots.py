"""What a contest and its child share, and a child that stands."""

import json
import os
import sys

import numpy as np
import psutil
import pytest

from harness.conversation import Conversation
from harness.copies import load_copies, map_copies, save_copies
from harness.slots import Slots, poison, unwritten
from tests.harness.entry_points import RIGHT, check_job, compile_entry

FIELDS = {"x": ("uint16", (3,)), "y": ("float32", (2, 5))}


@pytest.fixture
def slots():
    made = Slots.new(FIELDS)
    yield made
    os.close(made.descriptor)


def test_what_one_side_writes_the_other_sees_and_no_tensor_overlaps_another(slots):
    other = Slots.from_json(json.loads(json.dumps(slots.to_json()))).arrays
    poison(slots.arrays["x"][:2]), poison(slots.arrays["y"][:2])
    assert unwritten(other["x"][:2]) == 6 and unwritten(other["y"][:2]) == 20
    other["y"][0] = 1
    assert unwritten(slots.arrays["y"][:2]) == 10 and unwritten(slots.arrays["x"][:2]) == 6
    assert (slots.arrays["y"][0] == 1).all() and slots.arrays["x"].shape == (slots.count, 3)


def test_one_element_that_is_left_is_found(slots):
    made = slots.arrays["y"][:4]
    made[...] = np.inf
    assert unwritten(made) == 0
    poison(made[3, 1, 4:])
    assert unwritten(made) == 1


def test_copies_come_back_as_they_were_written_in_the_order_of_the_fields(tmp_path):
    given = [{"y": np.full((2, 5), n, np.float32), "x": np.full(3, n, np.uint16)} for n in range(4)]
    save_copies(tmp_path / "copies.npy", FIELDS, 4, given)
    for read in (load_copies, map_copies):
        copies = read(tmp_path / "copies.npy")
        assert list(copies) == ["x", "y"]
        assert all((copies[name][n] == array).all() for n, arrays in enumerate(given) for name, array in arrays.items())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone seals memory")
def test_nobody_takes_memory_away(slots):
    with pytest.raises(PermissionError):
        os.truncate(slots.descriptor, 0)


def test_a_child_stands_until_it_is_asked_again(tmp_path):
    x = np.linspace(-1, 1, 1001, dtype=np.float32)
    job = check_job(tmp_path, compile_entry(tmp_path, RIGHT), x)
    (call,) = job["calls"]
    given = {"x": ("float32", x.shape)}
    slots = Slots.new({**given, **{o["name"]: (o["dtype"], o["shape"]) for o in call["outputs"]}})
    save_copies(tmp_path / "copies.npy", given, 1, [{"x": x}])
    job = {"kind": "contest", "device": "cpu", "inputs": str(tmp_path / "copies.npy")}
    job |= {"slots": slots.to_json(), "arms": {"it": call}, "calls": [call]}
    with Conversation(job, ("it",), tmp_path, 20.0, (slots.descriptor,), native=True) as child:
        child.ready()
        for _ in range(3):
            assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
            child.ask("prepare", arm="it", launches=1, first=0)
            assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
            assert child.ask("run", arm="it")["seconds"] > 0

"""The record of events: nothing is lost by a kill, what is damaged is named."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.errors import CheckError
from harness.events import Events
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage

TOKENS = st.integers(0, 10**9)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS)
EVENTS = st.builds(Event, st.sampled_from(Kind), st.text(), USAGES, st.floats(0, 1e6), st.text())
STALL = Event(Kind.STALL, "silent for 300 s\nand longer", Usage(output=3), 0.25, "a model")


@given(st.lists(EVENTS, max_size=4))
def test_what_is_recorded_is_read(events):
    with TemporaryDirectory() as folder:
        for event in events:
            Events(Path(folder, "events.jsonl")).record(event)
        assert [*Events(Path(folder, "events.jsonl")).read()] == events


def test_a_price_that_is_not_known_stays_unknown(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    events.record(Event(Kind.CUT, "", Usage(), math.nan, "a model"))
    assert math.isnan(next(events.read()).usd) and "NaN" not in events.path.read_text()


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_a_kill_has_cut_is_none(tmp_path, kept):
    events = Events(tmp_path / "events.jsonl")
    events.record(STALL)
    line = events.path.read_bytes()
    events.path.write_bytes(line + line[:kept])
    again = Events(events.path)
    again.record(STALL)
    assert [*again.read()] == [STALL, STALL]


@pytest.mark.parametrize("damaged", ["{}", "[]", "3", '{"kind": "none"}', "no JSON"])
def test_a_damaged_line_is_named(tmp_path, damaged):
    (tmp_path / "events.jsonl").write_text(damaged + "\n")
    with pytest.raises(CheckError, match=r"events\.jsonl line 1: damaged event"):
        [*Events(tmp_path / "events.jsonl").read()]

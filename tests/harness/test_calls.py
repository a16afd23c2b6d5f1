"""The record of a model's calls: nothing is lost by a kill, and what nobody accounts for is found."""

import math

import pytest

from baseline.errors import CheckError
from harness.calls import Calls, unaccounted
from harness.propose.claude.call import Call
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage
from tests.harness.rows import row

MOST = Usage(input=1050, output=1000)
TOOK = Usage(input=100, cache_write=20, cache_read=1000, output=50)
ANSWERED = Call(1, "a model", TOOK, 0.25, answered=True)
OUT = Call(2, "a model", MOST, 0.5)
ROW = row(model="a model", input_tokens=1120, cached_tokens=1000, output_tokens=50, usd=0.25)


def test_a_call_is_as_it_was_recorded_last(tmp_path):
    calls = Calls(tmp_path / "calls.jsonl")
    for call in (Call(1, "a model", MOST, 0.5), OUT, ANSWERED):
        calls.record(call)
    assert Calls(calls.path).read() == [ANSWERED, OUT]


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_an_answer_whose_line_a_kill_has_cut_is_not_there_and_the_next_line_is_whole(tmp_path, kept):
    calls = Calls(tmp_path / "calls.jsonl")
    calls.record(OUT)
    begun = calls.path.read_bytes()
    calls.record(Call(2, "a model", TOOK, 0.25, answered=True))
    calls.path.write_bytes(begun + calls.path.read_bytes()[len(begun) :][:kept])
    assert Calls(calls.path).read() == [OUT]
    calls.record(Call(3, "a model", MOST, math.nan))
    assert [call.number for call in calls.read()] == [2, 3] and math.isnan(calls.read()[1].usd)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "calls.jsonl").write_text('{"number": "one"}\n')
    with pytest.raises(CheckError, match=r"calls\.jsonl line 1: damaged call"):
        Calls(tmp_path / "calls.jsonl").read()


def test_what_candidates_and_events_tell_of_is_accounted_for():
    cut = Event(Kind.CUT, "lost", Usage(), 0.5, "a model")
    assert [*unaccounted([ANSWERED, OUT], [row(), ROW], [cut])] == []
    assert [*unaccounted([], [row()], [])] == []


def test_what_was_answered_counts_as_it_was_and_what_was_not_as_the_most_dollars():
    (event,) = unaccounted([ANSWERED, OUT], [], [])
    assert (event.kind, event.model, event.usd) == (Kind.UNUSED, "a model", 0.75)
    assert event.usage == Usage(input=120, cache_read=1000, output=50)
    (event,) = unaccounted([ANSWERED, OUT], [ROW], [])
    assert (event.usage, event.usd) == (Usage(), 0.5)


def test_models_are_told_apart_and_one_without_a_price_stays_without():
    other = Call(3, "another", TOOK, math.nan, answered=True)
    (event,) = unaccounted([ANSWERED, other], [ROW], [])
    assert event.model == "another" and math.isnan(event.usd) and event.usage.output == 50
    assert [*unaccounted([ANSWERED, other], [ROW], [event])] == []

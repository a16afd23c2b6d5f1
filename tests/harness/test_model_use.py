"""What a search took of a language model: summed over candidates and events, and said where people look."""

import math

import pytest

from harness.model_use import ModelUse, model_use
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage
from tests.harness.rows import row

ASKED = row(model="a model", input_tokens=1000, cached_tokens=900, output_tokens=50, usd=0.25)
CUT = Event(Kind.CUT, "lost", Usage(input=100, cache_write=20, cache_read=80, output=7), 0.5, "a model")
USE = ModelUse(1200, 980, 57, 0.75)


def test_candidates_and_events_are_summed():
    assert model_use([row(), ASKED], [CUT]) == USE and USE.cached_share == pytest.approx(980 / 1200)


def test_without_a_model_there_is_nothing_to_say():
    assert not model_use([row(), row()], []) and ModelUse().cached_share is None
    assert model_use([], [Event(Kind.CUT, "lost", Usage(), 0.1, "a model")])  # what it cost is not known, and counted


@pytest.mark.parametrize(("speedup", "each"), [(None, None), (1.0, None), (0.9, None), (1.5, 0.015), (31.0, 0.00025)])
def test_dollars_are_divided_by_what_was_confirmed(speedup, each):
    assert USE.usd_per_percent(speedup) == (each and pytest.approx(each))
    assert ("for each confirmed 1 %" in USE.text(speedup)) == (each is not None)


def test_a_line_has_tokens_the_share_from_the_cache_and_dollars():
    expected = "1,200 tokens in (82 % from the cache), 57 out; $0.75, $0.0150 for each confirmed 1 %"
    assert USE.text(1.5) == expected
    assert ModelUse(output_tokens=3, usd=math.nan).text(1.5) == "0 tokens in, 3 out; it has no price"

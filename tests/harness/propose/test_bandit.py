"""The bandit: each kind gets its turn, and what has paid is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from harness.propose.bandit import Bandit

GAINS = st.lists(st.floats(-1, 1), min_size=1, max_size=8)


@given(GAINS, st.floats(0.1, 1))
def test_what_paid_more_scores_more(gains, more):
    bandit = Bandit({"low": gains, "high": [gain + more for gain in gains]})
    assert bandit.score("high") > bandit.score("low")


@given(GAINS)
def test_what_was_tried_less_often_scores_more_for_the_same_gain(gains):
    mean = sum(gains) / len(gains)
    bandit = Bandit({"often": [min(mean, 0.3)] * 9, "once": [min(mean, 0.3)]})
    assert bandit.score("once") > bandit.score("often")


def test_a_kind_that_only_loses_gives_way_to_one_that_was_never_tried():
    bandit = Bandit({"loser": [-0.5]})
    assert bandit.score("never") > bandit.score("loser")

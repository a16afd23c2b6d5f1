"""What was decoded while the clock ran must be what the champion's kernels would say too."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.engine import Engine
from baseline.golden import load
from harness.candidate import Status
from harness.decode_check import CHECKED, Said, Text, Texts, check
from harness.decodes import Decode
from harness.engine_job import Arms

TEXT = Text((1, 2), 3)
TIE = 1e-3


class Scorer:
    """A champion's process to which the token 0 is always the most likely, by far."""

    def ask(self, what, arm, read, said):
        assert (what, arm, read) == ("score", "champion", [1, 2, 3])
        return {"logits": [[7.0, 7.0 if token == 0 else 0.0] for token in said]}


class Fixed:
    """One that finds the second token of a decode less likely than another."""

    def __init__(self, gap):
        self.gap = gap

    def ask(self, what, **arguments):
        return {"logits": [[7.0, 7.0], [7.0 + self.gap, 7.0]]}


def decode(seconds, *tokens, logit=7.0):
    return Decode(seconds, seconds, 0, 0, TEXT, tuple(Said(token, logit) for token in tokens or (0, 0)))


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=40), st.integers(1, CHECKED), st.floats(0.0, 0.4))
def test_a_decode_that_was_quick_by_a_lie_is_seen(honest, lies, quick):
    decodes = [decode(seconds) for seconds in honest] + [decode(quick, 0, 9)] * lies
    failure = check(decodes, Scorer(), TIE)
    assert failure.status is Status.WRONG
    assert failure.reason == "in a timed decode: token 2 is 9, whose logit is 7 below the highest"


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=40))
def test_honest_decodes_are_right(seconds):
    assert check([decode(s) for s in seconds], Scorer(), TIE) is None


@pytest.mark.parametrize(("gap", "right"), [(0.0, True), (0.9 * TIE, True), (1.1 * TIE, False), (math.nan, False)])
def test_a_token_may_be_as_likely_as_another_but_for_a_tie(gap, right):
    assert (check([decode(1.0)], Fixed(gap), TIE) is None) is right


@pytest.mark.parametrize(("logit", "right"), [(7.0, True), (6.9995, True), (6.99, False), (math.nan, False)])
def test_a_token_that_was_guessed_has_another_logit(logit, right):
    failure = check([decode(1.0, logit=logit)], Scorer(), TIE)
    assert (failure is None) is right
    assert right or failure.reason == f"in a timed decode: the logit of token 1 is 7, not {logit}"


def test_no_two_texts_are_the_same(golden):
    texts = Texts.of(load(golden), 8)
    drawn = {texts.draw() for _ in range(200)}
    assert len(drawn) == 200 and len({text.first for text in drawn}) > 100
    assert all(len(text.prompt) == 8 and {*text.prompt} <= {*texts.tokens} for text in drawn)


def test_what_an_engine_says_is_what_it_scores_highest(packed, tmp_path):
    """After a first token of ours, of which its own greedy one would have been another."""
    job = {"arms": {"champion": {"choices": {}, "io": {}}}, "kernels": str(tmp_path), "cache": str(tmp_path)}
    arms = Arms(Engine.load(packed), job)
    arms.start("champion", [5, 6, 7])
    said = arms.decode(first=11, tokens=4)["said"]
    tokens = [token for token, _ in said]
    for (_, logit), (highest, its) in zip(said, arms.score("champion", [5, 6, 7, 11], tokens)["logits"], strict=True):
        assert highest == its and abs(logit - its) < TIE
    others = arms.score("champion", [5, 6, 7, 12], tokens)["logits"]  # another text is told by its logits
    assert all(abs(logit - its) > TIE for (_, logit), (_, its) in zip(said, others, strict=True))

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from experiments.false_keeps import ARMS, WHOLE, holds, outcome, signs, study
from experiments.noises import noises
from harness.blocks import Blocks
from harness.candidate import Speedup, Status
from harness.contest import PAIRS, Contest, Samples
from harness.contestant import Repetition
from harness.keep import (
    ERROR,
    LEAST_BLOCKS,
    MOST_BLOCKS,
    PRIOR,
    bounds,
    decide,
    evidence,
    guard,
    log_ratios,
    needed,
    settled,
    speedup,
)

RATIOS = st.lists(st.floats(-1, 1), min_size=1, max_size=MOST_BLOCKS)
DRAWN, ABBA = ARMS[0], ARMS[1]


def test_blocks_cancel_linear_drift():
    drift = [1.0 + 0.01 * i for i in range(8)]  # the clock of each repetition, in ABBA order
    champion = [2 * drift[i] for i in (0, 3, 4, 7)]
    candidate = [1 * drift[i] for i in (1, 2, 5, 6)]
    ratios = log_ratios(champion, candidate)
    assert len(ratios) == 2
    assert ratios == pytest.approx([math.log(2)] * 2, abs=2e-4)


@pytest.mark.parametrize("arms", [([1.0], [1.0]), ([1.0, 1.0], [1.0]), ([], []), ([1.0, 0.0], [1.0, 1.0])])
def test_samples_that_are_no_abba(arms):
    with pytest.raises(ValueError):
        log_ratios(*arms)


@pytest.mark.parametrize(("count", "blocks"), [(0, 1), (1, 1), (9, 9), (3, 12), (30, 40), (81, 120)])
def test_evidence_is_the_integral_over_all_bets(count, blocks):
    a, b = PRIOR

    def stake(p):
        return p ** (a - 1) * (1 - p) ** (b - 1)

    def bet(p):
        return stake(p) * (2 * p) ** count * (2 * (1 - p)) ** (blocks - count)

    expected = integrate.quad(bet, 0.5, 1)[0] / integrate.quad(stake, 0.5, 1)[0]
    assert math.exp(evidence(np.array([count]), blocks)[0]) == pytest.approx(expected, rel=1e-6)


def test_evidence_is_a_martingale_of_fair_coins():
    blocks = np.arange(30)
    for n in blocks:
        now, then = evidence(np.arange(n + 1), n), np.exp(evidence(np.arange(n + 2), n + 1))
        assert np.exp(now) == pytest.approx((then[:-1] + then[1:]) / 2, rel=1e-9)


@given(st.integers(1, 400))
def test_evidence_grows_with_the_count(blocks):
    assert all(low < high for low, high in pairwise(evidence(np.arange(blocks // 2, blocks + 1), blocks)))


def test_the_least_blocks_are_the_first_that_show_anything():
    assert needed(LEAST_BLOCKS) == LEAST_BLOCKS
    assert all(needed(blocks) > blocks for blocks in range(1, LEAST_BLOCKS))


def test_too_few_blocks_say_nothing():
    measured = bounds([0.1] * (LEAST_BLOCKS - 1))
    assert (measured.value, measured.low, measured.high) == (pytest.approx(math.exp(0.1)), 0.0, math.inf)
    with pytest.raises(ValueError, match="at least one block"):
        bounds([])


def test_speedup_of_equal_ratios_is_exact():
    measured = speedup([math.log(3)] * LEAST_BLOCKS)
    assert (measured.value, measured.low, measured.high) == pytest.approx((3, 3, 3))


@given(RATIOS)
def test_bounds_do_not_cross(ratios):
    measured = bounds(ratios)
    assert measured.low <= measured.value * (1 + 1e-12)
    assert measured.high >= measured.value * (1 - 1e-12)


@given(RATIOS, st.integers(2, 4))
def test_more_of_the_same_evidence_never_widens(ratios, times):
    once, again = bounds(ratios), bounds(ratios * times)
    assert once.low <= again.low and again.high <= once.high


@given(RATIOS, st.floats(1e-4, 0.2))
def test_a_smaller_error_never_narrows(ratios, error):
    wide, narrow = bounds(ratios, error / 2), bounds(ratios, error)
    assert wide.low <= narrow.low and narrow.high <= wide.high


@given(RATIOS, st.floats(-1, 1))
def test_bounds_scale_with_the_gain(ratios, gain):
    before, after = bounds(ratios), bounds([ratio + gain for ratio in ratios])
    for name in ("value", "low", "high"):
        assert getattr(after, name) == pytest.approx(math.exp(gain) * getattr(before, name))


@given(RATIOS)
def test_swapped_arms_swap_the_bounds(ratios):
    old, new = bounds(ratios), bounds([-ratio for ratio in ratios])
    assert new.value == pytest.approx(1 / old.value)
    if old.low:
        assert (new.low, new.high) == (pytest.approx(1 / old.high), pytest.approx(1 / old.low))


@given(RATIOS, st.permutations(range(3)))
def test_bounds_do_not_depend_on_the_order(ratios, order):
    assert bounds(ratios) == bounds([ratio for part in order for ratio in ratios[part::3]])


def test_interrupted_blocks_move_little():
    quiet = list(np.random.default_rng(0).normal(0.2, 0.01, 20))
    disturbed = [*quiet[:-1], -5.0]
    assert bounds(disturbed).low == pytest.approx(bounds(quiet).low, rel=0.02)


def test_keeps_only_a_lower_bound_above_the_gain():
    assert decide(Speedup(1.10, 1.03, 1.2), 0.02) is None
    assert decide(Speedup(1.10, 1.02, 1.2), 0.02).status is Status.DISCARDED
    assert decide(Speedup(0.9, 0.8, 0.99), 0.02).status is Status.TOO_SLOW
    assert decide(Speedup(1.10, 1.03, 1.2), 0.02, 0.09) is None
    assert "shows no less than 1.11x" in decide(Speedup(1.10, 1.03, 1.2), 0.02, 0.11).reason
    assert decide(bounds([0.5] * (LEAST_BLOCKS - 1)), 0.02).status is Status.DISCARDED


def test_guard_rejects_only_a_proven_loss():
    assert guard(Speedup(0.99, 0.95, 1.01), 0.02) is None
    assert guard(Speedup(0.9, 0.85, 0.95), 0.02).status is Status.TOO_SLOW


@pytest.mark.parametrize(
    ("low", "high", "is_settled"), [(1.03, 1.2, True), (0.9, 1.01, True), (1.01, 1.03, False), (0.0, math.inf, False)]
)
def test_settled_when_the_gain_is_shown_or_shown_not_to_be(low, high, is_settled):
    assert settled(Speedup(1.0, low, high), 0.02) is is_settled


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.sampled_from([0.0, 0.02]))
def test_the_simulated_rule_is_the_rule(thousandths, min_gain):
    ratios = [ratio / 1000 for ratio in thousandths]
    above, below = signs(np.array([ratios]), math.log1p(min_gain))
    for n in range(1, len(ratios) + 1):
        measured = bounds(ratios[:n])
        assert above[0, n - 1] == (decide(measured, min_gain) is None)
        assert (above | below)[0, n - 1] == settled(measured, min_gain)


PAIR = st.lists(st.integers(-60, 90), min_size=LEAST_BLOCKS, max_size=30)


class Paired(Contest):
    """A contest whose pairs of processes measure these log-ratios."""

    def __init__(self, pairs, min_gain):
        self.__dict__.update(pairs=pairs, min_gain=min_gain)

    def _pairs(self, plan):
        return [Samples(1, _blocks(pair)) for pair in self.pairs], None


def _blocks(ratios):
    champion, candidate = ([Repetition(s, s) for r in ratios for s in (math.exp(scale * r),) * 2] for scale in (1, 0))
    return Blocks(champion, candidate, [True] * len(ratios))


@given(st.lists(PAIR, min_size=PAIRS, max_size=PAIRS), st.integers(1, 120), st.sampled_from([0.0, 0.02]))
def test_the_simulated_second_stage_is_the_second_stage(thousandths, together, min_gain):
    pairs = [[(ratio + 0.5) / 1000 for ratio in pair] for pair in thousandths]
    padded = np.array([pair + [1.0] * (30 - len(pair)) for pair in pairs])
    kept = holds(padded, np.array([len(pair) for pair in pairs]), np.array([together / 1000 + 1e-5]), min_gain)
    assert bool(kept[0]) is (Paired(pairs, min_gain)._apart(math.exp(together / 1000 + 1e-5)) is None)


@pytest.mark.parametrize("name", noises())
def test_whole_contests_keep_fewer_equal_arms_and_find_large_gains(name):
    kept, first = (rates(name, arm, 4000) for arm in (WHOLE, DRAWN))
    assert all(kept[setting] <= first[setting] for setting in kept)
    assert max(kept[0.0, 0.0], kept[0.02, 0.02], kept[0.02, 0.0]) <= ERROR
    assert kept[0.0, 0.10] > (0.9 if "gated" not in name else 0.3)


def rates(name, arm, comparisons):
    """Kept share of the comparisons by (min_gain, gain)."""
    return {(row.min_gain, row.gain): row.kept / row.of for row in study(name, noises()[name], comparisons, [arm])}


@pytest.mark.parametrize("name", noises())
def test_false_keeps_and_power(name):
    kept = rates(name, DRAWN, 4000)
    assert kept[0.0, 0.0] <= ERROR and kept[0.02, 0.02] <= ERROR and kept[0.02, 0.0] <= ERROR
    assert kept[0.0, 0.02] <= kept[0.0, 0.05] <= kept[0.0, 0.10]
    assert kept[0.0, 0.10] > 0.99
    if "gated" not in name:  # its times spread by 13 %
        assert kept[0.0, 0.05] > 0.99 and kept[0.0, 0.02] > 0.4 and kept[0.02, 0.05] > 0.85


@pytest.mark.parametrize("name", ["recorded: qmatvec/plain", "in step with ABBA"])
def test_a_fixed_order_takes_a_place_in_the_block_for_a_gain(name):
    assert rates(name, ABBA, 500)[0.0, 0.0] > 0.3


def test_clear_arms_cost_few_blocks():
    clear = np.random.default_rng(0).normal(0, 0.02, (100, MOST_BLOCKS))
    assert outcome(signs(clear + 0.1, 0.0)) == (100, LEAST_BLOCKS)
    assert outcome(signs(clear - 0.1, 0.0)) == (0, LEAST_BLOCKS)

import math

import numpy as np
import pytest

from harness.candidate import Speedup, Status
from harness.keep import decide, guard, log_ratios, speedup


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


def test_speedup_of_equal_ratios_is_exact():
    measured = speedup([math.log(3)] * 5)
    assert (measured.value, measured.low, measured.high) == pytest.approx((3, 3, 3))


def test_interval_of_untrimmed_samples_is_students_t():
    measured = speedup([0.0, 0.1, 0.2])  # t(0.975, 2) = 4.3027, s = 0.1
    half = 4.30265273 * 0.1 / math.sqrt(3)
    assert math.log(measured.value) == pytest.approx(0.1)
    assert math.log(measured.low) == pytest.approx(0.1 - half)
    assert math.log(measured.high) == pytest.approx(0.1 + half)


def test_an_interrupted_block_moves_nothing():
    quiet = list(np.random.default_rng(0).normal(0.2, 0.01, 10))
    disturbed = [*quiet[:-1], -5.0]
    assert speedup(disturbed).value == pytest.approx(speedup(quiet).value, rel=0.01)


def test_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(1)
    measured = [speedup(rng.normal(0.05, 0.1, 12)) for _ in range(2000)]
    covered = np.mean([m.low <= math.exp(0.05) <= m.high for m in measured])
    assert 0.93 < covered < 0.97


def test_equal_arms_are_seldom_kept():
    rng = np.random.default_rng(2)
    kept = sum(decide(speedup(rng.normal(0, 0.03, 12)), 0.02) is None for _ in range(2000))
    assert kept <= 10


def test_too_few_blocks():
    with pytest.raises(ValueError, match="at least 3"):
        speedup([0.1, 0.2])


def test_keeps_only_a_lower_bound_above_the_gain():
    assert decide(Speedup(1.10, 1.03, 1.2), 0.02) is None
    assert decide(Speedup(1.10, 1.02, 1.2), 0.02).status is Status.DISCARDED
    assert decide(Speedup(0.9, 0.8, 0.99), 0.02).status is Status.TOO_SLOW


def test_guard_rejects_only_a_proven_loss():
    assert guard(Speedup(0.99, 0.95, 1.01), 0.02) is None
    assert guard(Speedup(0.9, 0.85, 0.95), 0.02).status is Status.TOO_SLOW

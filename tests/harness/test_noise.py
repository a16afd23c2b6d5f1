import math
from dataclasses import replace

import numpy as np
import pytest

from experiments.false_keeps import outcome, signs
from experiments.noises import block_ratios, noises, recordings
from harness.keep import LEAST_BLOCKS
from harness.noise import CASES, Noise, detectable, drifted, noise_of

QUIET = Noise(level_s=1e-3, jitter=0.01, spread=0.01, blocks=40)


def gaussian(spread, blocks=60, seed=0):
    return np.random.default_rng(seed).normal(0, spread, blocks)


def test_noise_is_that_of_the_arms():
    rng = np.random.default_rng(0)
    champion, candidate = 2e-3 * np.exp(rng.normal(0, 0.02, 2000)), 1e-3 * np.exp(rng.normal(0, 0.02, 2000))
    noise = noise_of(champion, candidate)
    assert noise.blocks == 1000
    assert noise.level_s == pytest.approx(2e-3, rel=0.01)
    assert noise.jitter == pytest.approx(0.02, rel=0.1)
    assert noise.spread == pytest.approx(0.02, rel=0.1)  # sqrt(4) / 2 of a repetition's


def test_spikes_are_no_spread():
    times = np.exp(np.random.default_rng(0).normal(0, 0.01, 200))
    spiked = np.where(np.arange(200) % 20 == 0, 10 * times, times)
    assert noise_of(spiked, times).jitter == pytest.approx(noise_of(times, times).jitter, rel=0.2)


@pytest.mark.parametrize("kernel", recordings())
def test_a_detectable_gain_is_shown_in_4_of_5_cases(kernel):
    ratios = block_ratios(np.log(recordings()[kernel]))
    gain = detectable(ratios, 60)
    name = f"recorded: {kernel}"
    fresh = block_ratios(noises()[name](np.random.default_rng(5), (2000, 60)), np.random.default_rng(6))
    kept, _ = outcome(signs(fresh, -math.log1p(gain)))
    assert kept / 2000 == pytest.approx(CASES, abs=0.08)


def test_more_blocks_show_smaller_gains_and_too_few_none():
    gains = [detectable(gaussian(0.02), blocks) for blocks in (LEAST_BLOCKS - 1, LEAST_BLOCKS, 20, 60, 120)]
    assert gains[0] == math.inf
    assert gains == sorted(gains, reverse=True)
    assert 0 < gains[-1] < 0.02


def test_more_noise_hides_larger_gains():
    quiet, loud = (detectable(gaussian(spread), 60) for spread in (0.01, 0.1))
    assert 5 < loud / quiet < 20


def test_detectable_is_reproducible():
    assert detectable(gaussian(0.02), 60) == detectable(gaussian(0.02), 60)


def test_a_favoured_arm_hides_gains_of_its_size():
    assert detectable(gaussian(0.001) + 0.05, 60) > 0.05


def test_without_noise_any_gain_is_detectable():
    assert detectable([0.0] * 20, 60) == 0.0


@pytest.mark.parametrize(
    ("changed", "has_drifted"),
    [
        ({}, False),
        ({"level_s": 1.02e-3}, False),
        ({"level_s": 1.05e-3}, True),
        ({"level_s": 0.95e-3}, True),
        ({"spread": 0.02}, False),  # can be chance
        ({"spread": 0.03}, True),
        ({"spread": 0.003}, True),
        ({"spread": 0.03, "blocks": 9}, False),
    ],
)
def test_drift_is_a_level_or_a_noise_that_changed(changed, has_drifted):
    assert drifted(QUIET, replace(QUIET, **changed)) is has_drifted


def test_the_same_machine_seldom_drifts():
    rng = np.random.default_rng(0)
    runs = [noise_of(*np.exp(rng.normal(0, 0.02, (2, 40)))) for _ in range(1000)]
    assert np.mean([drifted(before, now) for before, now in zip(runs[::2], runs[1::2], strict=True)]) < 0.02

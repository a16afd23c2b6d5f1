"""What an A/A run says about a machine: the noise of its timings, and the smallest gain that they can show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.keep import LEAST_BLOCKS, log_ratios, needed

CASES = 0.8  # a gain that is shown in 4 of 5 comparisons counts as detectable
RESAMPLES = 400
MOVED = 3.0  # spreads of the champion's times: its own median moves by a third of one
DOUBLED = math.log(2.0)  # of the log of a spread
CHANCE = 1.17  # the log of a MAD from n values has this standard deviation / sqrt(n) (Gaussian values)
MAD = 1.4826  # from the median absolute deviation to a Gaussian's standard deviation


@dataclass(frozen=True)
class Noise:
    """The timings of two arms, whatever their gain.

    level_s: median seconds of a repetition of the champion. jitter: the robust spread of those, and spread: that of
    the blocks' log-ratios; both relative, 0.01 is 1 %. blocks: how many there were.
    """

    level_s: float
    jitter: float
    spread: float
    blocks: int


def noise_of(champion_s: Sequence[float], candidate_s: Sequence[float]) -> Noise:
    """The noise of two arms, from the seconds of their repetitions in the order in which they were measured."""
    ratios = log_ratios(champion_s, candidate_s)
    level_s = float(np.median(champion_s))
    return Noise(level_s, _spread(np.log(champion_s)), _spread(np.asarray(ratios)), len(ratios))


def detectable(ratios: Sequence[float], blocks: int) -> float:
    """The smallest gain (0.03 is 3 %) that 4 of 5 comparisons of at most `blocks` blocks would show on this machine.

    In one process: that new ones show it too is another question (`harness.contest`).
    From the log-ratios of an A/A run, resampled and looked at after each block; inf where `blocks` can show nothing.
    Equal arms are as likely to be slower as faster, so each ratio counts with either sign: a run in which one arm was
    favoured by its place in the block says that the machine cannot show a gain of that size.
    """
    if blocks < LEAST_BLOCKS:
        return math.inf
    either = np.concatenate([ratios, np.negative(ratios)])
    samples = np.random.default_rng(0).choice(either, (blocks, RESAMPLES)).T  # more blocks begin with the same ones
    highest = _lows(samples).max(axis=1)  # a gain of g raises all of them by log(1 + g)
    return max(math.expm1(-float(np.quantile(highest, 1 - CASES))), 0.0)


def drifted(before: Noise, now: Noise) -> bool:
    """Whether the machine is no longer the one of the A/A run: the same champion's time has moved, or the noise.

    The times of another champion say nothing: compare those of the kernel that ran in both.
    """
    moved = abs(math.log(now.level_s / before.level_s)) > MOVED * max(before.jitter, now.jitter)
    small, large = sorted((before.spread, now.spread))
    by_chance = CHANCE * math.sqrt(1 / before.blocks + 1 / now.blocks)
    return moved or large > small * math.exp(DOUBLED + by_chance)


def _lows(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower bound of each row (a comparison) after each of its blocks, from the first that has one."""
    looks = range(LEAST_BLOCKS, ratios.shape[1] + 1)
    return np.stack([np.sort(ratios[:, :n], axis=1)[:, -needed(n)] for n in looks], axis=1)


def _spread(values: NDArray[np.float64]) -> float:
    return MAD * float(np.median(np.abs(values - np.median(values))))

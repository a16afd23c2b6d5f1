"""The keep rule: pure functions of the samples of two arms."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.candidate import Failure, Speedup, Status

ERROR = 1 / 200  # of either bound, over all looks together: the false keeps of equal arms
# The Beta prior of `evidence`, heavy near 1. A flat one needs 11 blocks to see what 9 show with this one,
# and shows a small gain with 120 blocks in 46 of 100 cases where this one does in 42.
PRIOR = (1.0, 0.5)
LEAST_BLOCKS = 9  # fewer show nothing, even when all agree: `needed`
MOST_BLOCKS = 120  # show a gain of half the blocks' spread in 3 of 4 cases (Gaussian); 0.7 of it needs twice as many


def log_ratios(champion: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """One log(champion / candidate) for each block (ABBA or BAAB), of two samples an arm, in seconds.

    Averaging the two logs of an arm inside a block cancels a linear drift of the machine.
    ValueError when the arms have different lengths, an odd length, or a time that is not positive.
    """
    if len(champion) != len(candidate) or len(champion) % 2 or not len(champion):
        raise ValueError(f"ABBA needs an even, equal number of samples; got {len(champion)} and {len(candidate)}")
    if min(*champion, *candidate) <= 0:
        raise ValueError("a time of zero or less is no measurement")
    ratios = [math.log(a / b) for a, b in zip(champion, candidate, strict=True)]
    return [(first + second) / 2 for first, second in zip(ratios[::2], ratios[1::2], strict=True)]


def evidence(counts: NDArray[np.int64], blocks: int) -> NDArray[np.float64]:
    """Log of the e-value against 'the median is at most theta', `counts` of `blocks` log-ratios being above theta.

    A bet that a ratio is above theta with probability p > 1/2 multiplies its stake by 2p where it is and by 2 (1 - p)
    where it is not. The stake is spread over p by the Beta prior above 1/2, and the integral is exact. Where theta is
    not below the median no bet gains on average, whatever the ratios' distribution, so that 1 / ERROR is ever reached
    in at most ERROR of all sequences (Ville 1939; Robbins 1970; Howard and Ramdas 2022, sequential quantiles).
    """
    a, b = PRIOR
    above, below = counts + a, blocks - counts + b

    def log_mass(a: object, b: object) -> NDArray[np.float64]:
        """Of the Beta integrand between 1/2 and 1."""
        return np.asarray(special.betaln(a, b) + np.log(special.betainc(b, a, 0.5)))

    return blocks * math.log(2) + log_mass(above, below) - log_mass(a, b)


@cache
def needed(blocks: int, error: float = ERROR) -> int:
    """How many of `blocks` log-ratios must lie on one side of a threshold to show the median there.

    More than `blocks` where even all of them are too few.
    """
    counts = np.arange(blocks // 2 + 1, blocks + 1)
    shown = evidence(counts, blocks) >= -math.log(error)
    return int(counts[shown].min(initial=blocks + 1))


def bounds(ratios: Sequence[float], error: float = ERROR) -> Speedup:
    """The speed-up and its bounds from log-ratios of blocks: [0, inf] while there are too few.

    The location is the median, and the bounds are a confidence sequence for it: in at most `error` of all comparisons
    does either bound ever pass the truth, however often one looks (two-sided 99 %). They are order statistics:
    `evidence` asks of a ratio only on which side of a threshold it lies, so that spikes and clocks with two speeds
    can neither fake a gain nor widen the interval. It needs blocks that are ABBA or BAAB by the toss of a coin:
    then equal arms are as likely to be slower as faster, whatever the machine does; a fixed order takes an effect of
    the place in the block for a gain.

    Bets that also use the size of a ratio assume symmetry. Signed ranks find a gain of half the spread more often (in
    83 against 51 of 100 cases of a recorded noise), and take 15 blocks for a clear one that 9 signs show;
    self-normalised sums lose against both on recorded noise (`experiments/LOG.md`).
    """
    if not len(ratios):
        raise ValueError("bounds need at least one block")
    values = np.sort(np.asarray(ratios, dtype=float))
    count = needed(len(values), error)
    middle = math.exp(float(np.median(values)))
    if count > len(values):
        return Speedup(middle, 0.0, math.inf)
    return Speedup(middle, math.exp(values[-count]), math.exp(values[count - 1]))


def speedup(ratios: Sequence[float]) -> Speedup:
    """The speed-up and its 99 % bounds (see `bounds`)."""
    return bounds(ratios)


def settled(measured: Speedup, min_gain: float) -> bool:
    """Whether more blocks have nothing to add: the gain is shown to be more than `min_gain`, or to be less."""
    return measured.low > 1 + min_gain or measured.high < 1 + min_gain


def decide(measured: Speedup, min_gain: float, least: float = 0.0) -> Failure | None:
    """None when the gain is shown: the lower bound exceeds 1 + min_gain, and the gain is at least the `least` that this
    machine can show (`harness.aa`). Otherwise what was shown instead."""
    interval = f"{measured.value:.3f}x [{measured.low:.3f}, {measured.high:.3f}]"
    if measured.high < 1:
        return Failure(Status.TOO_SLOW, f"slower than the champion: {interval}")
    if measured.low <= 1 + min_gain:
        return Failure(Status.DISCARDED, f"no gain over {1 + min_gain:.2f}x shown: {interval}")
    if measured.value < 1 + least:
        return Failure(Status.DISCARDED, f"{interval}: at the moment the machine shows no less than {1 + least:.2f}x")
    return None


def guard(measured: Speedup, min_gain: float) -> Failure | None:
    """None unless the engine as a whole is shown to be slower by more than `min_gain` with a faster kernel."""
    if measured.high >= 1 - min_gain:
        return None
    interval = f"{measured.value:.3f}x [{measured.low:.3f}, {measured.high:.3f}]"
    return Failure(Status.TOO_SLOW, f"faster alone, but it slows the engine: {interval}")

"""The keep rule: pure functions of the samples of two arms."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from harness.candidate import Failure, Speedup, Status

TRIM = 0.2  # share of the log-ratios left out at each end: an interrupted repetition is no evidence
CONFIDENCE = 0.95


def log_ratios(champion: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """One log(champion / candidate) for each ABBA block, of two samples an arm, in seconds.

    Averaging the two logs of an arm inside a block cancels a linear drift of the machine.
    ValueError when the arms have different lengths, an odd length, or a time that is not positive.
    """
    if len(champion) != len(candidate) or len(champion) % 2 or not champion:
        raise ValueError(f"ABBA needs an even, equal number of samples; got {len(champion)} and {len(candidate)}")
    if min(*champion, *candidate) <= 0:
        raise ValueError("a time of zero or less is no measurement")
    ratios = [math.log(a / b) for a, b in zip(champion, candidate, strict=True)]
    return [(first + second) / 2 for first, second in zip(ratios[::2], ratios[1::2], strict=True)]


def speedup(ratios: Sequence[float]) -> Speedup:
    """The speed-up and its 95 % interval from paired log-ratios, at least 3 of them.

    The location is the 20 % trimmed mean; its interval is Student's t with the winsorised variance
    (Tukey and McLaughlin 1963; Wilcox, Introduction to Robust Estimation, section 4.3).
    """
    if len(ratios) < 3:
        raise ValueError(f"an interval needs at least 3 blocks; got {len(ratios)}")
    values = np.sort(np.asarray(ratios, dtype=float))
    cut = int(TRIM * len(values))
    centre = float(values[cut : len(values) - cut].mean())
    winsorised = np.clip(values, values[cut], values[-1 - cut])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * TRIM if cut else 1.0) * math.sqrt(len(values)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 2 * cut - 1)) * error
    return Speedup(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def settled(measured: Speedup, min_gain: float) -> bool:
    return measured.low > 1 + min_gain or measured.high < 1 + min_gain


def decide(measured: Speedup, min_gain: float) -> Failure | None:
    """None when the gain is shown: the lower bound exceeds 1 + min_gain. Otherwise what was shown instead."""
    if measured.low > 1 + min_gain:
        return None
    interval = f"{measured.value:.3f}x [{measured.low:.3f}, {measured.high:.3f}]"
    if measured.high < 1:
        return Failure(Status.TOO_SLOW, f"slower than the champion: {interval}")
    return Failure(Status.DISCARDED, f"no gain over {1 + min_gain:.2f}x shown: {interval}")


def guard(measured: Speedup, min_gain: float) -> Failure | None:
    """None unless the engine as a whole is shown to be slower by more than `min_gain` with a faster kernel."""
    if measured.high >= 1 - min_gain:
        return None
    interval = f"{measured.value:.3f}x [{measured.low:.3f}, {measured.high:.3f}]"
    return Failure(Status.TOO_SLOW, f"faster alone, but it slows the engine: {interval}")

"""Noises of a machine, as the log times of the four repetitions of a block: (comparisons, blocks, 4).

All of it is what is left when both arms run the same kernel.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = tuple[int, int]
Noise = Callable[[np.random.Generator, Shape], Floats]

RECORDED = Path(__file__).parents[1] / "tests" / "harness" / "data" / "noise.tsv"  # by experiments.record_noise
RUN = 10  # successive recorded blocks that are resampled together, so that what lasts for several blocks does


def gaussian(rng: np.random.Generator, shape: Shape, spread: float = 0.05) -> Floats:
    """5 % a repetition."""
    return rng.normal(0, spread, (*shape, 4))


def spikes(rng: np.random.Generator, shape: Shape) -> Floats:
    """One repetition in ten is interrupted, for a time without a mean."""
    return gaussian(rng, shape, 0.03) + np.log1p((rng.random((*shape, 4)) < 0.1) * 0.1 * rng.pareto(1, (*shape, 4)))


def linear_drift(rng: np.random.Generator, shape: Shape) -> Floats:
    """Each repetition 0.5 % slower than the last."""
    steps = 0.005 * np.arange(4 * shape[1]).reshape(1, shape[1], 4)
    return steps + gaussian(rng, shape, 0.03)


def random_walk(rng: np.random.Generator, shape: Shape) -> Floats:
    """Each repetition 3 % off the last."""
    steps = rng.normal(0, 0.03, (shape[0], 4 * shape[1]))
    return steps.cumsum(axis=1).reshape(*shape, 4) + gaussian(rng, shape, 0.03)


def two_clocks(rng: np.random.Generator, shape: Shape) -> Floats:
    """Two speeds, 25 % apart, each of which lasts for 5 blocks on average and ends anywhere in a block."""
    switches = rng.random((shape[0], 4 * shape[1])) < 1 / 20
    return 0.22 * (switches.cumsum(axis=1) % 2).reshape(*shape, 4) + gaussian(rng, shape, 0.03)


def in_step(rng: np.random.Generator, shape: Shape) -> Floats:
    """Something that slows every fourth repetition by 5 %: in a comparison always the same one of a block."""
    struck = rng.integers(0, 4, (shape[0], 1, 1)) == np.arange(4)
    return 0.05 * struck + gaussian(rng, shape, 0.03)


def recorded(times_us: Floats) -> Noise:
    """Runs of successive blocks of a recording (blocks, 4), chosen at random."""
    logs = np.log(times_us)

    def resampled(rng: np.random.Generator, shape: Shape) -> Floats:
        starts = rng.integers(0, len(logs), (shape[0], -(-shape[1] // RUN), 1))
        blocks = (starts + np.arange(RUN)) % len(logs)
        return logs[blocks.reshape(shape[0], -1)[:, : shape[1]]]

    return resampled


def recordings() -> dict[str, Floats]:
    """The recorded microseconds (blocks, 4) by kernel."""
    lines = [line.split("\t") for line in RECORDED.read_text().splitlines() if not line.startswith("#")][1:]
    kernels = dict.fromkeys(line[0] for line in lines)
    return {kernel: np.array([line[1:] for line in lines if line[0] == kernel], float) for kernel in kernels}


def noises() -> Mapping[str, Noise]:
    """All of them by name."""
    return {
        **{f"recorded: {kernel}": recorded(times_us) for kernel, times_us in recordings().items()},
        "gaussian": gaussian,
        "spikes": spikes,
        "linear drift": linear_drift,
        "random walk": random_walk,
        "two clocks": two_clocks,
        "in step with ABBA": in_step,
    }


def block_ratios(log_times: Floats, drawn: np.random.Generator | None = None) -> Floats:
    """The log-ratio of each block (comparisons, blocks) of equal arms: ABBA, or ABBA or BAAB as `drawn` has it."""
    ratios = (log_times[..., 0] - log_times[..., 1] - log_times[..., 2] + log_times[..., 3]) / 2
    return ratios if drawn is None else ratios * drawn.choice([-1.0, 1.0], ratios.shape)

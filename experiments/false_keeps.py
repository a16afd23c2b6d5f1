"""How often equal arms are kept, and real gains found: python -m experiments.false_keeps [FOLDER]

Simulated comparisons under recorded and made-up noise: for the keep rule of `harness.keep` and the one before it, and
for whole contests, which have a budget and whose winner must win in pairs of processes too (`harness.contest`).
Writes table.tsv, false_keeps.png, false_keeps.svg and README.md. Fixed seeds; about two minutes.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from experiments.noises import Floats, Noise, block_ratios, noises
from harness.blocks import fitting
from harness.contest import APART, PAIRS, REPETITION_S, ContestPlan
from harness.keep import ERROR, MOST_BLOCKS, needed
from harness.noise import MAD
from harness.report import BLUE, GREEN, GREY, ORANGE, PINK

COMPARISONS = 20_000
GAINS = (0.02, 0.05, 0.10)
MIN_GAINS = (0.0, 0.02)
T_BLOCKS = (20, 60)  # Student's t: of one look, and at most of many
T_LEAST = 6
TRIM = 0.2
EDGE = 0.03  # the chart's lowest rate, in percent: zero has no place on a log axis
BLOCK_S = 5 * REPETITION_S  # of quick kernels: four repetitions, and as much as another one between them
TOGETHER, ALONE = (fitting(plan.blocks, plan.budget_s, BLOCK_S) for plan in (ContestPlan(), APART))  # blocks at most
# What a pair of processes adds to the log-ratios of all its blocks has this share of their spread: 0.42, 0.44 and 0.55
# in 14 pairs of equal arms of qmatvec/limbs, gated_delta_step/fused and qmatvec/plain (0.21 to 0.34 by medians: it has
# outliers).
PROCESSES = 0.5
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """A rule's outcome under a noise: `kept` of `of` comparisons, its 95 % interval (Clopper and Pearson 1934) and the
    mean blocks used. Gains as fractions."""

    noise: str
    order: str
    rule: str
    min_gain: float
    gain: float
    kept: int
    of: int
    low: float
    high: float
    blocks: float


def signs(ratios: Floats, threshold: float) -> tuple[Bools, Bools]:
    """After each block (comparisons, blocks): is the median shown above the threshold, and is it shown below?"""
    counts = np.array([needed(n) for n in range(1, ratios.shape[1] + 1)])
    return (ratios > threshold).cumsum(axis=1) >= counts, (ratios < threshold).cumsum(axis=1) >= counts


def t_once(ratios: Floats, threshold: float) -> tuple[Bools, Bools]:
    """The rule before: the 95 % interval of the 20 % trimmed mean (Tukey and McLaughlin 1963), after 20 blocks."""
    low, high = _t_interval(ratios[:, : T_BLOCKS[0]])
    early = np.zeros((len(ratios), T_BLOCKS[0] - 1), bool)
    return tuple(np.column_stack([early, shown]) for shown in (low > threshold, high < threshold))  # type: ignore[return-value]


def t_always(ratios: Floats, threshold: float) -> tuple[Bools, Bools]:
    """The rule before, looked at after each of 6 to 60 blocks: what no one should do."""
    intervals = [_t_interval(ratios[:, :n]) for n in range(T_LEAST, T_BLOCKS[1] + 1)]
    early = np.zeros((len(ratios), T_LEAST - 1), bool)
    above = np.column_stack([early, *(low > threshold for low, _ in intervals)])
    return above, np.column_stack([early, *(high < threshold for _, high in intervals)])


def _t_interval(ratios: Floats) -> tuple[Floats, Floats]:
    values = np.sort(ratios, axis=1)
    count = values.shape[1]
    cut = int(TRIM * count)
    centre = values[:, cut : count - cut].mean(axis=1)
    winsorised = np.clip(values, values[:, [cut]], values[:, [-1 - cut]]).std(axis=1, ddof=1)
    error = winsorised / ((1 - 2 * TRIM) * math.sqrt(count))
    half = stats.t.ppf(0.975, count - 2 * cut - 1) * error
    return centre - half, centre + half


def outcome(shown: tuple[Bools, Bools]) -> tuple[int, float]:
    """Comparisons that end in a keep, and the mean blocks until they end either way or run out."""
    kept, blocks = ended(shown)
    return int(kept.sum()), float(blocks.mean())


def ended(shown: tuple[Bools, Bools]) -> tuple[Bools, Ints]:
    """Which comparisons end in a keep, and the blocks until each ends either way or runs out."""
    above, below = shown
    ends = (above | below).argmax(axis=1)
    kept = above[np.arange(len(above)), ends]
    return kept, np.where((above | below).any(axis=1), ends + 1, above.shape[1])


def contests(equal: Floats, noise: Noise, min_gain: float, gain: float) -> tuple[int, float]:
    """As `outcome`, of whole contests: in one process within the budget, and what would be kept in new processes too.

    equal: the log-ratios of equal arms in one process (comparisons, blocks). The blocks are those of that process.
    """
    ratios, rng = equal[:, :TOGETHER] + math.log1p(gain), np.random.default_rng(2)
    kept, blocks = ended(signs(ratios, math.log1p(min_gain)))
    if not kept.any():
        return 0, float(blocks.mean())
    pairs = (int(kept.sum()) * PAIRS, ALONE)
    spread = PROCESSES * MAD * float(np.median(np.abs(equal)))
    apart = block_ratios(noise(rng, pairs), rng) + rng.normal(math.log1p(gain), spread, (pairs[0], 1))
    _, counts = ended(signs(apart, math.log1p(min_gain)))
    held = holds(apart, counts, medians(ratios[kept], blocks[kept]), min_gain)
    return int(held.sum()), float(blocks.mean())


def holds(ratios: Floats, counts: Ints, together: Floats, min_gain: float) -> Bools:
    """Which comparisons are kept (`harness.contest.Contest._apart`), by the first `counts` log-ratios of each of their
    PAIRS pairs of processes, a row each, and the median log-ratio that they had in one process."""
    values = np.median(medians(ratios, counts).reshape(-1, PAIRS), axis=1)
    wins = ((ratios > 0) & (np.arange(ratios.shape[1]) < counts[:, None])).sum(axis=1)
    least = [needed(int(blocks)) for blocks in counts.reshape(-1, PAIRS).sum(axis=1)]
    shown = wins.reshape(-1, PAIRS).sum(axis=1) >= np.array(least, int)
    return shown & (values > np.maximum(together / 2, math.log1p(min_gain)))


def medians(ratios: Floats, counts: Ints) -> Floats:
    """The median of the first so many of each row."""
    found = np.empty(len(ratios))
    for count in np.unique(counts):
        rows = counts == count
        found[rows] = np.median(ratios[rows, :count], axis=1)
    return found


RULES = {"signs": signs, "t, one look": t_once, "t, all looks": t_always}
WHOLE = ("ABBA or BAAB", "signs, then apart")
ARMS = (("ABBA or BAAB", "signs"), ("ABBA", "signs"), ("ABBA", "t, one look"), ("ABBA", "t, all looks"))


def study(
    name: str, noise: Noise, comparisons: int = COMPARISONS, arms: Sequence[Any] = (*ARMS, WHOLE)
) -> Iterator[Row]:
    """The rows of a noise. Gains of `min_gain` itself are the false keeps; so are gains of 0."""
    log_times = noise(np.random.default_rng(0), (comparisons, MOST_BLOCKS))
    for order, rule in arms:
        ratios = block_ratios(log_times, np.random.default_rng(1) if order != "ABBA" else None)
        for min_gain, gain in _settings(rule):
            threshold = math.log1p(min_gain) - math.log1p(gain)
            whole = (order, rule) == WHOLE
            kept, blocks = contests(ratios, noise, min_gain, gain) if whole else outcome(RULES[rule](ratios, threshold))
            interval = stats.binomtest(kept, comparisons).proportion_ci(0.95, "exact")
            yield Row(name, order, rule, min_gain, gain, kept, comparisons, interval.low, interval.high, blocks)


def _settings(rule: str) -> list[tuple[float, float]]:
    """Pairs of min_gain and gain. The foil is there for its false keeps alone."""
    if rule == "t, all looks":
        return [(0.0, 0.0)]
    equal = [(0.0, 0.0), (0.02, 0.02), (0.02, 0.0)]
    return equal + [(min_gain, gain) for min_gain in MIN_GAINS for gain in GAINS if gain > min_gain]


# The record.


def main(folder: Path) -> None:
    """Simulates, and writes the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for name, noise in noises().items() for row in study(name, noise)]
    lines = ["\t".join(field.name for field in fields(Row)), *("\t".join(_texts(row)) for row in rows)]
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    with rc_context({"svg.hashsalt": "nightforge", "svg.fonttype": "none"}):
        figure = draw(rows)
        figure.savefig(folder / "false_keeps.png", dpi=150)
        figure.savefig(folder / "false_keeps.svg", metadata={"Date": None})
    (folder / "README.md").write_text(readme(rows))


def _texts(row: Row) -> list[str]:
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in astuple(row)]


def chosen(rows: Sequence[Row], order: str, rule: str, min_gain: float, gain: float) -> list[Row]:
    """One row a noise."""
    return [row for row in rows if astuple(row)[1:5] == (order, rule, min_gain, gain)]


def draw(rows: Sequence[Row]) -> Figure:
    """Above: false keeps of four ways to compare; below: the gains that the present one finds."""
    figure = Figure(figsize=(7.5, 12.5), layout="constrained")
    above, below = figure.subplots(2, 1)
    figure.suptitle("Equal arms are kept in less than 1 of 200 comparisons\nwhere a coin orders each block", size=16)
    _false_keeps(above, [chosen(rows, *arm, 0.0, 0.0) for arm in ARMS])
    _power(below, [chosen(rows, *WHOLE, 0.0, gain) for gain in GAINS])
    return figure


def _false_keeps(axes: Any, arms: Sequence[Sequence[Row]]) -> None:
    styles = zip(arms, (BLUE, ORANGE, PINK, GREY), "os^v", (0.27, 0.09, -0.09, -0.27), strict=True)
    for rows, colour, marker, lift in styles:
        rates = [max(100 * row.kept / row.of, EDGE) for row in rows]
        heights = [lift - i for i in range(len(rows))]
        label = f"{rows[0].rule}, {rows[0].order}"
        axes.scatter(rates, heights, s=60, color=colour, marker=marker, label=label, zorder=3, clip_on=False)
    axes.axvline(100 * ERROR, color="black", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(EDGE, 100)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.set_xlabel("equal arms that are kept\n(dashed: 1 in 200; at the left edge: under 0.03 %)", size=12)
    axes.legend(fontsize=12, loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=2, frameon=False)
    _noise_axis(axes, arms[0])


def _power(axes: Any, gains: Sequence[Sequence[Row]]) -> None:
    for rows, colour, lift in zip(gains, (ORANGE, GREEN, BLUE), (0.3, 0.0, -0.3), strict=True):
        for i, row in enumerate(rows):
            text = f"{100 * row.gain:.0f} %"
            axes.text(100 * row.kept / row.of, lift - i, text, color=colour, size=11, ha="center", va="center")
    axes.set_xlim(-4, 104)
    axes.set_xticks(range(0, 101, 20), [f"{x} %" for x in range(0, 101, 20)])
    axes.set_xlabel(
        "candidates 2, 5 and 10 % faster that are kept\n(whole contests: in one process, then in three pairs)", size=12
    )
    _noise_axis(axes, gains[0])


def _noise_axis(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_yticks([-i for i in range(len(rows))], [row.noise.replace(": ", ":\n") for row in rows])
    axes.set_ylim(0.6 - len(rows), 0.6)
    axes.tick_params(labelsize=12)
    axes.grid(axis="x", alpha=0.3)
    for i in range(1, len(rows)):
        axes.axhline(0.5 - i, color=GREY, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def readme(rows: Sequence[Row]) -> str:
    """The numbers that the chart shows."""
    arms = (*ARMS, WHOLE)
    equal = [chosen(rows, order, rule, 0.0, 0.0) for order, rule in arms]
    false = _table([f"{rule}, {order}" for order, rule in arms], equal, lambda row: f"{100 * row.kept / row.of:.2f} %")
    numbers = {"blocks": MOST_BLOCKS, "together": TOGETHER, "pairs": PAIRS, "alone": ALONE, "block_ms": 1000 * BLOCK_S}
    power, first = (_found(rows, arm) for arm in (WHOLE, ARMS[0]))
    return README.format(comparisons=COMPARISONS, false=false, power=power, first=first, share=PROCESSES, **numbers)


def _found(rows: Sequence[Row], arm: tuple[str, str]) -> str:
    found = [chosen(rows, *arm, *setting) for setting in _settings("signs")[1:]]
    heads = [f"{100 * row.gain:.0f} over {100 * row.min_gain:.0f} %" for row, *_ in found]
    return _table(heads, found, lambda row: f"{100 * row.kept / row.of:.1f} % ({row.blocks:.0f})")


def _table(heads: Sequence[str], columns: Sequence[Sequence[Row]], text: Callable[[Row], str]) -> str:
    lines = [["noise", *heads], ["---", *("---:" for _ in heads)]]
    lines += [[row[0].noise, *map(text, row)] for row in zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


README = """# False keeps, and gains that are found

![False keeps and power](false_keeps.png)

Made by `python -m experiments.false_keeps`: {comparisons} simulated comparisons a figure, fixed seeds. `table.tsv` has
all of them with their 95 % intervals; the noises are in `experiments/noises.py`.

Equal arms that are kept with `min_gain=0` (in one process: with any other one, arms that differ by just that much):

{false}

Where every block is ABBA, an effect of the place in the block is taken for a gain. The recorded `qmatvec/plain` has
one: the last of four repetitions is 0.4 % slower. A coin that makes a block ABBA or BAAB turns it into noise.

Kept by whole contests (and mean blocks of their first stage), as gain over `min_gain`. Both stages are simulated: at
most {together} blocks in one process, as many as begin within the budget when a block takes {block_ms:g} ms; then
{pairs} pairs of new processes with at most {alone} blocks each. What a pair adds to the log-ratios of all its blocks is
Gaussian, with {share:g} of the spread of the noise's blocks: about as in 14 pairs of equal arms of each of three
kernels, on a loaded machine with two cores. Not simulated are blocks that are measured again, the witness, and the A/A
runs, because of which a search may ask for more than `min_gain`.

{power}

The same for the first stage alone, without a budget: the signs with ABBA or BAAB, of at most {blocks} blocks.

{first}
"""


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "results/false-keeps"))

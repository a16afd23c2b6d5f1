"""How often equal arms are kept, and real gains found: python -m experiments.false_keeps [FOLDER]

Simulated comparisons under recorded and made-up noise, for the keep rule of `harness.keep` and for the one before it.
Writes table.tsv, false_keeps.png, false_keeps.svg and README.md. Fixed seeds; about a minute.
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
from harness.keep import ERROR, MOST_BLOCKS, needed
from harness.report import BLUE, GREEN, GREY, ORANGE, PINK

COMPARISONS = 20_000
GAINS = (0.02, 0.05, 0.10)
MIN_GAINS = (0.0, 0.02)
T_BLOCKS = (20, 60)  # Student's t: of one look, and at most of many
T_LEAST = 6
TRIM = 0.2
EDGE = 0.03  # the chart's lowest rate, in percent: zero has no place on a log axis
Bools = NDArray[np.bool_]


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
    above, below = shown
    ends = (above | below).argmax(axis=1)
    ended = (above | below).any(axis=1)
    kept = above[np.arange(len(above)), ends]
    return int(kept.sum()), float(np.where(ended, ends + 1, above.shape[1]).mean())


RULES = {"signs": signs, "t, one look": t_once, "t, all looks": t_always}
ARMS = (("ABBA or BAAB", "signs"), ("ABBA", "signs"), ("ABBA", "t, one look"), ("ABBA", "t, all looks"))


def study(name: str, noise: Noise, comparisons: int = COMPARISONS, arms: Sequence[Any] = ARMS) -> Iterator[Row]:
    """The rows of a noise. Gains of `min_gain` itself are the false keeps; so are gains of 0."""
    log_times = noise(np.random.default_rng(0), (comparisons, MOST_BLOCKS))
    for order, rule in arms:
        ratios = block_ratios(log_times, np.random.default_rng(1) if order != "ABBA" else None)
        for min_gain, gain in _settings(rule):
            threshold = math.log1p(min_gain) - math.log1p(gain)
            kept, blocks = outcome(RULES[rule](ratios, threshold))
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
    _power(below, [chosen(rows, *ARMS[0], 0.0, gain) for gain in GAINS])
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
        f"candidates 2, 5 and 10 % faster that are kept\n(signs, ABBA or BAAB, at most {MOST_BLOCKS} blocks)", size=12
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
    equal = [chosen(rows, order, rule, 0.0, 0.0) for order, rule in ARMS]
    false = _table([f"{rule}, {order}" for order, rule in ARMS], equal, lambda row: f"{100 * row.kept / row.of:.2f} %")
    found = [chosen(rows, *ARMS[0], *setting) for setting in _settings("signs")[2:]]
    heads = [f"{100 * row.gain:.0f} over {100 * row.min_gain:.0f} %" for row, *_ in found]
    power = _table(heads, found, lambda row: f"{100 * row.kept / row.of:.1f} % ({row.blocks:.0f})")
    return README.format(comparisons=COMPARISONS, false=false, power=power)


def _table(heads: Sequence[str], columns: Sequence[Sequence[Row]], text: Callable[[Row], str]) -> str:
    lines = [["noise", *heads], ["---", *("---:" for _ in heads)]]
    lines += [[row[0].noise, *map(text, row)] for row in zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


README = """# False keeps, and gains that are found

![False keeps and power](false_keeps.png)

Made by `python -m experiments.false_keeps`: {comparisons} simulated comparisons a figure, fixed seeds. `table.tsv` has
all of them with their 95 % intervals; the noises are in `experiments/noises.py`.

Equal arms that are kept with `min_gain=0` (and with any other one, arms that differ by just that much):

{false}

Where every block is ABBA, an effect of the place in the block is taken for a gain. The recorded `qmatvec/plain` has
one: the last of four repetitions is 0.4 % slower. A coin that makes a block ABBA or BAAB turns it into noise.

Kept (and mean blocks used) by the signs with ABBA or BAAB, as gain over `min_gain`:

{power}
"""


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "results/false-keeps"))

"""The record of a search for people: the progress chart and the table of what was kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from baseline.errors import UsageError
from harness.candidate import MEASURED, Speedup, Status
from harness.control import HEADLINE, Control, controls, counts, written
from harness.credit import Credit
from harness.events import load_events
from harness.ledger import Row, load_rows, unmeasured
from harness.model_use import model_use
from harness.points import Point, points

# Okabe and Ito's palette, which colour-blind readers can tell apart; the shapes differ too.
GREEN, ORANGE, BLUE, PINK, SKY, GREY = "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#56B4E9", "#999999"
LINE_COLOURS = (BLUE, ORANGE, PINK, SKY)


def write_report(
    run: Path,
    speedup: float | None = None,
    models: Sequence[Credit] = (),
    confirmed: Mapping[str, Speedup] = MappingProxyType({}),
) -> tuple[Path | None, Path]:
    """Write `progress.png` and `kept.md` into a run folder. UsageError when it holds no ledger.

    `speedup`: the confirmed one, None where there is none, and `confirmed` those of each op. `models`: what each
    language model has earned. No chart (None) where candidates wait to be timed and none was: it would have nothing to
    show.
    """
    rows = load_rows(run / "ledger.tsv")
    if not rows:
        raise UsageError(f"{run} holds no search: it has no ledger.tsv with rows")
    chart, table = run / "progress.png", run / "kept.md"
    made = points(rows)
    waiting = len(unmeasured(rows))
    control = controls(made, written(run))
    table.write_text("\n".join([kept_table(made), *_of_control(control), *_notes(run, rows, speedup, models)]))
    if waiting and not any(point.row.status in MEASURED for point in made):
        chart.unlink(missing_ok=True)
        return None, table
    draw(made, chart, control, confirmed)
    return chart, table


def _notes(run: Path, rows: Sequence[Row], speedup: float | None, models: Sequence[Credit]) -> Iterator[str]:
    """What is said below the table: what is left to time, and what was taken of a language model."""
    if waiting := len(unmeasured(rows)):
        yield f"Right and clean, and not measured yet: {waiting}.\n"
    if took := model_use(rows, load_events(run / "events.jsonl")):
        yield f"Taken of a language model: {took.text(speedup)}.\n"
    if len(models) > 1:
        yield "".join(f"- {credit.line()}\n" for credit in models)


def _of_control(control: Sequence[Control]) -> Iterator[str]:
    if control:
        yield f"{HEADLINE}:\n"
        yield "".join(f"- {one.line()}\n" for one in control)


def draw(made: Sequence[Point], path: Path, control: Sequence[Control], confirmed: Mapping[str, Speedup]) -> None:
    """The progress chart: candidate number against the speed-up of its op over the plain kernel, and dashed what the
    best of as many proposals would have come to of which none is built upon another.

    Its figures are those of the search, which chance has raised: an op is labelled with the `confirmed` one alone.
    """
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    top = max([p.speedup for p in made if p.speedup == p.speedup], default=1.0)
    low = min([p.speedup for p in made if p.speedup == p.speedup], default=1.0)
    floor = 0.8 * min(low, 1.0)
    _draw_best(axes, made, control, confirmed)
    _scatter(
        axes,
        [p for p in made if p.speedup == p.speedup and p.row.status is not Status.KEPT],
        None,
        "o",
        GREY,
        "discarded",
    )
    untimed = [p for p in made if p.speedup != p.speedup]
    _scatter(axes, [p for p in untimed if p.row.status is not Status.UNMEASURED], floor, "x", ORANGE, "failed")
    _scatter(axes, [p for p in untimed if p.row.status is Status.UNMEASURED], floor, "|", GREY, "unmeasured")
    _scatter(axes, [p for p in made if p.row.status is Status.KEPT], None, "o", GREEN, "kept")
    _label(axes, [p for p in made if p.row.status is Status.KEPT])
    if top > 3:
        axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0.85 * floor, 1.35 * top)
    axes.set_xlabel("candidate", fontsize=13)
    axes.set_ylabel("speed-up over the plain kernel", fontsize=13)
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if made:
        title = "the lines as they were searched; in figures, what was confirmed in fresh processes"
        figure.legend(
            fontsize=11, loc="outside upper center", ncols=4, frameon=False, title=title if confirmed else None
        )
    figure.savefig(path)


def _scatter(axes: Any, made: Sequence[Point], y: float | None, marker: str, colour: str, label: str) -> None:
    if made:
        heights = [p.speedup if y is None else y for p in made]
        size = 70 if label == "kept" else 30
        axes.scatter(
            [p.number for p in made],
            heights,
            s=size,
            marker=marker,
            color=colour,
            label=f"{label} ({len(made)})",
            zorder=3,
        )


def _draw_best(axes: Any, made: Sequence[Point], control: Sequence[Control], confirmed: Mapping[str, Speedup]) -> None:
    """The running best of each op that gained anything, as a step line, and its control."""
    best_of = {one.op: one for one in control}
    gained = [op for op in dict.fromkeys(p.row.op for p in made) if any(p.row.op == op and p.best != 1 for p in made)]
    for op, colour in zip(gained, LINE_COLOURS, strict=False):
        numbers, heights = [0], [1.0]
        for point in made:
            numbers.append(point.number)
            heights.append(point.best if point.row.op == op else heights[-1])
        label = f"{op} {confirmed[op].value:.1f}x" if op in confirmed else op
        axes.step(numbers, heights, where="post", color=colour, linewidth=2, label=label)
        if op in best_of:
            own = [point.number for point in made if point.row.op == op and counts(point)]
            axes.step([0, *own], [1.0, *best_of[op].curve], where="post", color=colour, linewidth=1, linestyle="--")
    if best_of:
        axes.plot([], [], color=GREY, linewidth=1, linestyle="--", label="best of as many")


def _label(axes: Any, kept: Sequence[Point]) -> None:
    """A few words hanging from each kept candidate's dot: upright text, so that neighbours do not collide."""
    for point in kept:
        axes.annotate(
            short(point.row),
            (point.number, point.speedup),
            textcoords="offset points",
            xytext=(3, -9),
            rotation=90,
            fontsize=9,
            ha="left",
            va="top",
            zorder=4,
        )


def short(row: Row) -> str:
    """What a candidate changed: a knob and its new value where the proposer says so, else the variant."""
    change = row.hypothesis.rpartition(": ")[2]
    knob, arrow, value = change.partition(" -> ")
    return f"{knob.split()[0]} {value}" if arrow else row.variant.replace("_", " ")


def kept_table(made: Sequence[Point]) -> str:
    """A Markdown table of the candidates that became champion."""
    lines = [
        "| # | op | kernel | over the last champion (99 % interval) | over plain, unconfirmed | hypothesis |",
        "|---:|---|---|---|---:|---|",
    ]
    return "\n".join([*lines, *_kept_lines(made)]) + "\n"


def _kept_lines(made: Sequence[Point]) -> Iterator[str]:
    for point in made:
        if point.row.status is Status.KEPT:
            row = point.row
            kernel = _cell(row.change)
            interval = f"{row.speedup:.2f}x ({row.speedup_low:.2f} to {row.speedup_high:.2f})"
            gain = f"{point.speedup:.2f}x"
            yield f"| {point.number} | {row.op} | {kernel} | {interval} | {gain} | {_cell(row.hypothesis)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

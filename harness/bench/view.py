"""What a person sees of the bench: a table each of the ops, the reads, a layer, and decode."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bench import engine, ops, reads
from harness.bench.figures import Figure, Row, Target

TITLES: Mapping[str, str] = {
    ops.TABLE: "Ops at the shapes of the 397B model: bytes that any kernel must touch, over the time of a call",
    reads.TABLE: "Expert reads past the page cache, beside the best direct reads of the same file",
    engine.LAYER: "The routed experts of one layer, one token, against its reads alone plus its kernels alone",
    engine.DECODE: "The engine on the slice",
}

SHORT = 15  # characters of a note that fits beside its figure


def show(rows: Sequence[Row], console: Console) -> None:
    """Print every table that has rows, long notes below it."""
    for name in TITLES:
        found = [row for row in rows if row.table == name]
        if found:
            console.print(Text(TITLES[name], style="bold"))
            console.print(table(found))
            for row in found:
                if len(row.note) > SHORT:
                    console.print(Text(f" {row.name}, {row.contender}: {row.note}", style="dim"))
            console.print()


def table(rows: Sequence[Row]) -> Table:
    """One table; the ratios that its rows have are columns. Where it is too wide, names and targets are folded."""
    against = list(dict.fromkeys(key for row in rows for key in row.ratios))
    made = Table(box=None, padding=(0, 1))
    made.add_column("", style="bold")
    made.add_column("", overflow="fold", min_width=12)
    made.add_column("median", justify="right", no_wrap=True)
    made.add_column("quartiles", style="dim", no_wrap=True)
    for key in against:
        made.add_column(f"of\n{key}", justify="right", no_wrap=True)
    made.add_column("target")
    made.add_column("", style="dim")
    last = ""
    for row in rows:
        label, last = ("" if row.name == last else row.name), row.name
        ratios = [ratio_text(row.ratios.get(key)) for key in against]
        note = row.note if len(row.note) <= SHORT else ""
        made.add_row(label, row.contender, *_figure(row), *ratios, _verdict(row), note)
    return made


def _figure(row: Row) -> tuple[str, str]:
    if row.figure is None:
        return "", "[yellow]not measured[/]"
    return f"{number(row.figure.median)} {row.unit}", f"{number(row.figure.low)} to {number(row.figure.high)}"


def _verdict(row: Row) -> Text:
    words = {True: ("met", "green"), False: ("missed", "red"), None: ("not measured", "yellow")}
    lines = []
    for target in row.targets:
        word, colour = words[row.reached(target)]
        lines.append(Text(f"{target_text(target, len(row.targets) > 1)} {word}", style=colour))
    return Text("\n").join(lines)


def target_text(target: Target, named: bool = False) -> str:
    """As in `>= 85 %`, or `>= 20x of mlx-lm` where it is to be `named`."""
    bound = f"{100 * target.bound:g} %" if target.bound < 2 else f"{target.bound:g}x"
    of = f" of {target.against}" if named else ""
    return f"{'>=' if target.least else '<='} {bound}{of}"


def ratio_text(ratio: Figure | None) -> str:
    """As in `85 %`, or `3.2x` where it is a multiple."""
    return "" if ratio is None else share(ratio.median)


def share(value: float) -> str:
    """A ratio: up to two as a percentage, above as a multiple."""
    return f"{100 * value:.1f} %" if value < 2 else f"{number(value)}x"


def number(value: float) -> str:
    """Three digits, or all of an integer part that is longer."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

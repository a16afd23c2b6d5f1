"""The record of a bench, to be committed: README.md, table.tsv, summary.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import strict_json
from harness.bench.figures import Figure, Row
from harness.bench.view import TITLES, number, ratio_text, target_text
from harness.doctor import Machine

COLUMNS = ("table", "name", "contender", "unit", "median", "low", "high", "samples", "ratios", "target", "met", "note")
VERDICTS = {True: "met", False: "missed", None: "not measured"}
METHOD = (
    "Medians of interleaved rounds, all in one run, with their quartiles; a ratio is the median of the ratios of the"
    " rounds. Inputs rotate over more than the last-level cache; the memory is read by as many threads as there are"
    " cores, from the same buffers. GB are 1e9 bytes."
)


def write(folder: Path, rows: Sequence[Row], machine: Machine, settings: Mapping[str, Any]) -> None:
    """Write the three files into `folder`, made if missing. `settings`: what the run was asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(COLUMNS), *("\t".join(_cells(row)) for row in rows)]
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    record = {"machine": asdict(machine), "settings": settings, "rows": [row.to_json() for row in rows]}
    (folder / "summary.json").write_text(strict_json.dumps(record))
    (folder / "README.md").write_text("\n".join(_readme(rows, machine, settings)) + "\n")


def _cells(row: Row) -> Iterator[str]:
    figure = row.figure
    yield from (row.table, row.name, row.contender, row.unit)
    if figure is None:
        yield from ("", "", "", "0")
    else:
        yield from (*(f"{value:.4g}" for value in (figure.median, figure.low, figure.high)), str(figure.samples))
    yield "; ".join(f"{name} {_spread(ratio)}" for name, ratio in row.ratios.items())
    yield "; ".join(f"{target.against} {target_text(target)}" for target in row.targets)
    yield "; ".join(VERDICTS[row.reached(target)] for target in row.targets)
    yield " ".join(row.note.split())


def _spread(ratio: Figure) -> str:
    return f"{ratio.median:.4g} ({ratio.low:.4g} to {ratio.high:.4g})"


def _readme(rows: Sequence[Row], machine: Machine, settings: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Bench on {machine.chip}, {machine.cores} cores\n"
    yield f"{machine.memory_bytes / 1e9:.1f} GB of memory, {machine.os}, Python {machine.python}, MLX {machine.mlx};"
    yield f"load {machine.load:.1f} when it began. Made by `nightforge bench out=FOLDER`.\n"
    yield METHOD + "\n"
    yield "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."
    for name, title in TITLES.items():
        found = [row for row in rows if row.table == name]
        if found:
            yield from ("", f"## {title}", "", *_markdown(found))


def _markdown(rows: Sequence[Row]) -> Iterator[str]:
    against = list(dict.fromkeys(key for row in rows for key in row.ratios))
    columns = ["", "", "median", "quartiles", *(f"of {key}" for key in against), "target", ""]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        figure = row.figure
        median = f"{number(figure.median)} {row.unit}" if figure else "not measured"
        quartiles = f"{number(figure.low)} to {number(figure.high)}" if figure else ""
        ratios = [ratio_text(row.ratios.get(key)) for key in against]
        note = " ".join(row.note.split()).replace("|", "\\|")
        yield f"| {' | '.join([row.name, row.contender, median, quartiles, *ratios, _targets(row), note])} |"


def _targets(row: Row) -> str:
    words = VERDICTS | {False: "**missed**"}
    named = len(row.targets) > 1
    return "; ".join(f"{target_text(target, named)} {words[row.reached(target)]}" for target in row.targets)

"""What a person sees of a long command: progress bars, the live table of a search, its summary."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from baseline.pack import Progress as OnBytes
from harness.aa import SelfContest
from harness.answer import Answer
from harness.candidate import Candidate, Speedup, Stage, Status
from harness.confirm import Summary
from harness.control import HEADLINE
from harness.ledger import Row
from harness.progress import Observer, Silent
from harness.rerun import Rerun
from harness.settings import SearchSettings

LATEST = 8  # rows of the live table
STYLES = {Status.KEPT: "green", Status.DISCARDED: "dim", Status.TOO_SLOW: "dim", Status.UNMEASURED: "cyan"}


def console() -> Console:
    """Standard error: standard output is for results."""
    return Console(file=sys.stderr, highlight=False)


@contextmanager
def byte_progress(what: str) -> Iterator[OnBytes]:
    """A progress bar on a terminal; nothing elsewhere."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def watch(settings: SearchSettings) -> Iterator[Observer]:
    """An observer for a search: a live table on a terminal, a line for each candidate elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    # Refreshed at each event and never by a thread of its own, which would disturb the measurements.
    with Live(console=console(), auto_refresh=False) as live:
        yield LiveTable(live, settings)


class Lines:
    """One line for each candidate."""

    def __init__(self) -> None:
        self._console = console()
        self._number = 0

    def on_stage(self, candidate: Candidate, stage: Stage) -> None:
        if stage is Stage.CONFIRM:
            self._console.print("confirming the champion in fresh processes")

    def on_row(self, row: Row) -> None:
        line = f"{self._number:4d} {row.elapsed_s:6.1f} s  {row.status:12} {gain(row):>8}  {title(row)}"
        self._console.print(line + (f"  ({row.reason})" if row.reason else ""), markup=False, soft_wrap=True)
        self._number += 1

    def on_champion(self, candidate: Candidate, row: Row) -> None:
        """Its row has said so."""

    def on_noise(self, run: SelfContest) -> None:
        self._console.print(run.line(), markup=False, soft_wrap=True)


class LiveTable:
    """The latest candidates, what runs now, and the champion."""

    def __init__(self, live: Live, settings: SearchSettings) -> None:
        self._live, self._settings = live, settings
        self._rows: list[Row] = []
        self._now = "measuring the seed"
        self._champion = ""
        self._noise: dict[str, str] = {}  # the last A/A run of each op

    def on_stage(self, candidate: Candidate, stage: Stage) -> None:
        self._now = f"{stage}: {candidate.hypothesis}"
        self._refresh()

    def on_row(self, row: Row) -> None:
        self._rows.append(row)
        self._refresh()

    def on_noise(self, run: SelfContest) -> None:
        self._noise[run.op] = run.line()
        self._refresh()

    def on_champion(self, candidate: Candidate, row: Row) -> None:
        self._champion = f"champion {row.id}: {title(row)}"
        self._refresh()

    def _title(self) -> str:
        judged = max(len(self._rows) - 1, 0)  # the first row is the seed's
        return (
            f"{self._settings.run} · candidates: {judged} · {self._settings.minutes:g} minutes, then the confirmation"
        )

    def _refresh(self) -> None:
        table = Table(title=self._title(), title_justify="left", expand=True)
        table.add_column("at", justify="right", min_width=5, no_wrap=True)
        table.add_column("status", min_width=9, no_wrap=True)
        table.add_column("speed-up", justify="right", min_width=8, no_wrap=True)
        for heading, ratio in (("candidate", 3), ("reason", 2)):
            table.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=ratio)
        for row in self._rows[-LATEST:]:
            cells = (f"{row.elapsed_s:.0f} s", str(row.status), gain(row), title(row), row.reason)
            table.add_row(*map(Text, cells), style=STYLES.get(row.status, "red"))
        lines = *((line, "dim") for line in self._noise.values()), (self._champion, "green"), (self._now, "default")
        self._live.update(
            Group(table, *(Text(line, style=style, no_wrap=True, overflow="ellipsis") for line, style in lines)),
            refresh=True,
        )


def gain(row: Row) -> str:
    """A row's speed-up as text; '' when it was not measured."""
    return f"{row.speedup:.2f}x" if row.speedup == row.speedup else ""


def title(row: Row) -> str:
    """What a row's candidate is, in a few words."""
    return f"{row.op} {row.change}".replace('"', "").strip() if row.op else "seed: the plain kernels"


def print_summary(summary: Summary, chart: Path | None) -> None:
    """What was found, by how much, end to end, what is left to do, and where the record lies."""
    out = console()
    out.print(
        f"{summary.evaluated} candidates in {summary.seconds:.0f} s, {summary.kept} kept; champion {summary.champion}"
    )
    if summary.confirmed is not None:
        table = Table("confirmed in fresh processes", "over the plain kernels", "99 % interval")
        for op, speedup in summary.confirmed.ops.items():
            table.add_row(f"{op}, bench shape", *bounds(speedup))
        table.add_row("decode, whole engine", *bounds(summary.confirmed.engine))
        out.print(table)
        slow, fast = summary.confirmed.seed_tokens_per_s, summary.confirmed.champion_tokens_per_s
        out.print(f"end to end: {slow:.1f} to {fast:.1f} tokens/s; largest KL {summary.confirmed.max_kl:.1e}")
        if summary.confirmed.cache_use is not None:
            for line in summary.confirmed.cache_use.lines("the plain kernels", "the champion"):
                out.print(line)
        for disturbance, blocks in summary.confirmed.disturbed.items():
            out.print(f"{blocks} blocks were measured under {disturbance}, which did not end")
    if summary.control:
        out.print(f"{HEADLINE}:", soft_wrap=True)
        for control in summary.control:
            out.print(control.line(), soft_wrap=True)
    for line in summary.costs.lines():
        out.print(line, soft_wrap=True)
    if summary.language_model:
        out.print(f"language model: {summary.language_model.text(summary.speedup)}", soft_wrap=True)
    for credit in summary.models if len(summary.models) > 1 else ():
        out.print(credit.line(), markup=False, soft_wrap=True)
    for line in left(summary):
        out.print(line, soft_wrap=True)
    out.print(f"record: {summary.run}" + (f"   chart: {chart}" if chart else ""), soft_wrap=True)


class Stages(Silent):
    """One line for each stage of each candidate."""

    def on_stage(self, candidate: Candidate, stage: Stage) -> None:
        """Names it."""
        console().print(f"{stage}: {candidate.id}", markup=False)


def print_rerun(found: Rerun) -> None:
    """What was recorded, beside what came of it now."""
    table = Table("over the plain kernels", "recorded", "now", "99 % interval")
    for what, recorded in found.recorded.items():
        now = bounds(found.again[what]) if what in found.again else ("", "")
        table.add_row(what, f"{recorded.value:.2f}x", *now)
    console().print(table)
    for note in found.notes:
        console().print(note, markup=False, soft_wrap=True)
    console().print("reproduced" if found.reproduced else f"not reproduced: {found.reason}", soft_wrap=True)


def print_answer(answer: Answer) -> None:
    """What became of a kernel: in a line, how much faster it is or what is wrong; the engine's speed-up in another."""
    out = console()
    for what, speedup in (("the op alone", answer.speedup), ("decode, whole engine", answer.engine)):
        if speedup is not None:
            value, interval = bounds(speedup)
            out.print(f"{what}: {value}, 99 % interval {interval}", markup=False, soft_wrap=True)
    reason = f" at {answer.stage}: {answer.reason}" if answer.reason else ""
    out.print(f"{answer.status}{reason}", markup=False, soft_wrap=True)


def left(summary: Summary) -> Iterator[str]:
    """What a search left undone, in a line each, and how to go on with it."""
    if summary.interrupted:
        yield "interrupted before the champion was confirmed"
    if summary.unmeasured:
        yield f"right and clean, and unmeasured: {summary.unmeasured}"
    if summary.next:
        yield f"go on with: {summary.next}"


def bounds(speedup: Speedup) -> tuple[str, str]:
    """A speed-up and its interval as text."""
    return f"{speedup.value:.2f}x", f"{speedup.low:.2f} to {speedup.high:.2f}"

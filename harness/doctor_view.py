"""What a person sees of the doctor: a line of progress, then the report in 80 columns."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from baseline.probe import DiskRead, MemoryRead
from harness.doctor import Compiler, Machine, Report, Step, binary

BUSY = 0.5  # a load of this much a core leaves too little to the measurements


@contextmanager
def progress_line() -> Iterator[Step]:
    """What is done now, on standard error: one line that changes on a terminal, a line each elsewhere."""
    if not sys.stderr.isatty():
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    # Refreshed at each step and never by a thread of its own, which would disturb the measurements.
    with Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True) as live:
        yield lambda text: live.update(Text(text, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)


def show(report: Report) -> None:
    """The report, on standard output."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = (
        ("machine", _machine(report.machine)),
        ("memory", _memory(report.memory)),
        ("disk", _disk(report.disk)),
        ("compilers", _compilers(report.compilers)),
        ("targets", _targets(report)),
        ("sandbox", _held(report.sandbox.in_force, report.sandbox.missing, report.sandbox.on_cuda)),
        ("watched", _held(report.watched.told, report.watched.missing)),
    )
    for label, content in rows:
        table.add_row(label, Padding(content, (0, 0, 1, 0)))
    Console(highlight=False).print(table)


def _machine(machine: Machine) -> RenderableType:
    lines = [
        f"{machine.chip}, {machine.cores} cores, {machine.memory_bytes / 1e9:.1f} GB of memory",
        f"{machine.os}, Python {machine.python}, MLX {machine.mlx}",
    ]
    busy = f"other programs are running (load {machine.load:.1f}): rates may be too low"
    note = [Text(busy, style="yellow")] if machine.load > BUSY * machine.cores else []
    return Group(*map(Text, lines), *note)


def _memory(memory: MemoryRead) -> RenderableType:
    if memory.gbps is None:
        return _missing(memory.reason)
    return Text(f"{memory.gbps:.1f} GB/s read, {memory.threads} threads over {memory.buffer_bytes >> 20} MiB")


def _disk(disk: DiskRead) -> RenderableType:
    free = "" if disk.free_bytes is None else f", {disk.free_bytes / 1e9:.0f} GB free"
    where = Text(f"{_short(disk.folder)}{free}")
    if disk.reads is None:
        return Group(where, _missing(disk.reason))
    how = {"DONTNEED": "no O_DIRECT here: buffered, evicted before each round"}.get(disk.cache or "", str(disk.cache))
    rates = Table.grid(padding=(0, 2))
    rates.add_row("", *(Text(binary(read.bytes), style="dim", justify="right") for read in disk.reads))
    rates.add_row("GB/s", *(Text(f"{read.gbps:.3g}", justify="right") for read in disk.reads))
    method = f"random reads, {disk.threads} threads, {disk.file_bytes >> 20} MiB file, {how}"
    return Group(where, Text(method), rates)


def _compilers(compilers: tuple[Compiler, ...]) -> RenderableType:
    if not compilers:
        return _missing("no C++ compiler on the PATH; install one or set CXX")
    rows = Table.grid(padding=(0, 2))
    for found in compilers:
        rows.add_row(Text(found.path, overflow="fold"), found.version, "used" if found.used else "")
    return rows


def _targets(report: Report) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    for name, ability in report.targets.items():
        answer = Text("yes", style="green") if ability.usable else Text("no", style="yellow")
        rows.add_row(name, answer, Text(ability.why, overflow="fold"))
    return rows


def _held(in_force: Sequence[str], missing: Sequence[str], on_cuda: Sequence[str] = ()) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("in force", Text(", ".join(in_force)))
    for reason in missing:
        rows.add_row("missing", Text(reason, style="yellow"))
    for weaker in on_cuda:
        rows.add_row("on cuda", Text(weaker, style="yellow"))
    return rows


def _missing(reason: str) -> Text:
    return Text(f"not measured: {reason}", style="yellow")


def _short(folder: str) -> str:
    home = str(Path.home())
    return f"~{folder.removeprefix(home)}" if folder.startswith(f"{home}/") else folder

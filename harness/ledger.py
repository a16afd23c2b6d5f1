"""The append-only record of every candidate and its outcome: a TSV file with a header, one write a row."""

import errno
import fcntl
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

import pandas as pd

from baseline.errors import CheckError, UsageError
from harness.candidate import LAYOUT, Stage, Status

ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Row:
    """One candidate's outcome. Speed-ups are against the champion of its time (1.0 for the seed); nan: not measured."""

    id: str
    parent: str
    proposer: str
    status: Status
    stage: Stage  # the stage that decided
    reason: str
    op: str  # the op whose kernel was changed, 'io' or 'layout'; '' for the seed
    variant: str  # the layout's name for one of 'layout'
    tunables: str  # JSON; the I/O policy for an I/O candidate, alignments and order for one of 'layout'
    code: str  # hash of the code that was loaded, by the engine where it came to that; '' where no op was changed
    speedup: float  # the op alone at the contract's bench shape; end to end where no op was changed
    speedup_low: float
    speedup_high: float
    engine_speedup: float  # decode tokens/s of the whole engine
    engine_speedup_low: float
    engine_speedup_high: float
    build_s: float
    check_s: float
    bench_s: float
    engine_s: float
    seconds: float  # all stages together, the harness's own work included
    elapsed_s: float  # from the start of this search (or of its resumption) to the end of this candidate
    model: str  # the language model that was asked; '' where none was
    input_tokens: int  # those from its cache included
    cached_tokens: int
    output_tokens: int
    usd: float  # nan: the model has no price
    hypothesis: str

    @property
    def kernel(self) -> tuple[str, str, str]:
        """What the candidate tried, whatever stood beside it: op, variant, tunables."""
        return self.op, self.variant, self.tunables

    @property
    def change(self) -> str:
        """Variant and tunables, or the I/O policy, for people; of a layout the name says enough."""
        return self.variant if self.op == LAYOUT else f"{self.variant} {self.tunables}".strip()


NAMES = tuple(f.name for f in fields(Row))
FLOATS = frozenset(f.name for f in fields(Row) if f.type is float)
INTEGERS = frozenset(f.name for f in fields(Row) if f.type is int)
HEADER = "\t".join(NAMES).encode() + b"\n"


def _escape(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)


def _unescape(text: str) -> str:
    plain = {code[1]: character for character, code in ESCAPES.items()}
    first, *rest = text.split("\\\\")  # an escaped backslash never starts another escape
    parts = [first, *rest]
    for code in "tnr":
        parts = [part.replace(f"\\{code}", plain[code]) for part in parts]
    return "\\".join(parts)


def encode(row: Row) -> bytes:
    """One line of the file, newline included."""
    cells = (repr(float(value)) if isinstance(value, float) else _escape(str(value)) for value in asdict(row).values())
    return "\t".join(cells).encode() + b"\n"


def decode(line: bytes) -> Row:
    """The inverse of `encode`, for a line without its newline. ValueError when it is no row."""
    cells = line.decode().split("\t")
    if len(cells) != len(NAMES):
        raise ValueError(f"{len(cells)} columns, not {len(NAMES)}")
    values: dict[str, object] = dict(zip(NAMES, map(_unescape, cells), strict=True))
    values |= {name: float(str(values[name])) for name in FLOATS}
    values |= {name: int(str(values[name])) for name in INTEGERS}
    values |= {"status": Status(str(values["status"])), "stage": Stage(str(values["stage"]))}
    return Row(**values)  # type: ignore[arg-type]


def _another(header: bytes) -> str:
    """What a file is whose first line is not HEADER."""
    names = header.decode(errors="replace").split("\t")
    if "id" not in names:
        return "not the header of a nightforge ledger"
    more, less = [name for name in names if name not in NAMES], [name for name in NAMES if name not in names]
    said = [f"{verb} the columns {', '.join(of)}" for verb, of in (("has", more), ("lacks", less)) if of]
    return f"made by another version of nightforge (it {' and '.join(said) or 'has its columns in another order'})"


def load_rows(path: Path) -> list[Row]:
    """All rows of a ledger, oldest first; none when there is no file.

    A last line without its newline was cut by a kill and is no row. CheckError names any other line that is not one.
    """
    if not path.is_file():
        return []
    header, *lines = path.read_bytes().split(b"\n")[:-1] or [HEADER[:-1]]
    if header != HEADER[:-1]:
        raise CheckError(f"{path} line 1: {_another(header)}")
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            rows.append(decode(line))
        except ValueError as error:
            raise CheckError(f"{path} line {number}: damaged row ({error})") from error
    return rows


def champion(rows: list[Row]) -> Row | None:
    """The last row that was kept."""
    return next((row for row in reversed(rows) if row.status is Status.KEPT), None)


def unmeasured(rows: Sequence[Row]) -> list[Row]:
    """The candidates whose kernels are still to be timed, oldest first: no row says more of them than UNMEASURED."""
    settled = {row.kernel for row in rows if row.status is not Status.UNMEASURED}
    return [row for row in rows if row.status is Status.UNMEASURED and row.kernel not in settled]


def latest(rows: Sequence[Row]) -> list[Row]:
    """The ledger without the UNMEASURED rows of kernels that were timed later."""
    waiting = unmeasured(rows)
    return [row for row in rows if row.status is not Status.UNMEASURED or row in waiting]


def frame(path: Path) -> pd.DataFrame:
    """The ledger as a table for reports: one column a field of `Row`, one row a candidate."""
    return pd.DataFrame([asdict(row) for row in load_rows(path)], columns=list(NAMES))


class Ledger:
    """A run's ledger, open for appending by this process alone."""

    def __init__(self, path: Path) -> None:
        """Opens or creates `path` and cuts off a torn last line. UsageError when another search has it open."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise UsageError(f"{path.parent}: another search is running in this folder") from error
        self._repair()
        self.rows = load_rows(path)

    def _repair(self) -> None:
        content = self.path.read_bytes()
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        if b"\n" not in content:
            self._write(HEADER)

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):  # a full disk can take half a line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(self._file)

    def append(self, row: Row) -> None:
        """Records one row, for good: one write, then fsync. OSError when the disk is full."""
        self._write(encode(row))
        self.rows.append(row)

    def champion(self) -> Row | None:
        """The last row that was kept."""
        return champion(self.rows)

    def close(self) -> None:
        """Lets another search open the ledger."""
        os.close(self._file)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

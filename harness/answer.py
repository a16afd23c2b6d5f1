"""What whoever wrote a kernel is told of it: what failed and where, or how much faster it was, and how sure that is."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from harness.candidate import MEASURED, Speedup, Status
from harness.ledger import Row

UNSOUND = "unsound"  # as a status: it did not come to be a candidate
READ = "read"  # the stage before all others: is it a variant, and a new one?
PASSED = (*MEASURED, Status.UNMEASURED)
LINE = re.compile(r"[\w.-]+\.(?:cpp|metal|cu)[:(](\d+)")  # NVRTC's are in brackets
HEADER_LINE = re.compile(r"line (\d+), column \d+")  # YAML's; it counts from the line after `/*---`


@dataclass(frozen=True)
class Answer:
    """status and stage: a ledger's, or UNSOUND and READ. reason: one line, '' for what is faster.

    line: of the file, where the reason names one. candidate: its id, '' where it did not come to be one.
    passed: no stage found it wrong; it may still be no faster. faster: shown to be.
    speedup: of the op alone over the champion, with its 99 % bounds; engine: of the whole engine's decode.
    """

    candidate: str
    status: str
    stage: str
    reason: str
    line: int | None
    passed: bool
    faster: bool
    speedup: Speedup | None = None
    engine: Speedup | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types; null for a bound that is infinite."""
        return asdict(self) | {"speedup": _bounds(self.speedup), "engine": _bounds(self.engine)}


def of_row(row: Row) -> Answer:
    """The answer to a candidate that was judged."""
    return Answer(
        candidate=row.id,
        status=row.status.value,
        stage=row.stage.value,
        reason=row.reason,
        line=line_of(row.reason),
        passed=row.status in PASSED,
        faster=row.status is Status.KEPT,
        speedup=_measured(row.speedup, row.speedup_low, row.speedup_high),
        engine=_measured(row.engine_speedup, row.engine_speedup_low, row.engine_speedup_high),
    )


def unsound(reason: str) -> Answer:
    """The answer to a file that is no variant, or none that may be tried."""
    return Answer("", UNSOUND, READ, reason, line_of(reason), passed=False, faster=False)


def line_of(reason: str) -> int | None:
    """The line of the variant's file that a reason names first."""
    if (named := LINE.search(reason)) is not None:
        return int(named[1])
    in_header = HEADER_LINE.search(reason)
    return int(in_header[1]) + 1 if in_header else None


def _measured(value: float, low: float, high: float) -> Speedup | None:
    return None if math.isnan(value) else Speedup(value, low, high)


def _bounds(speedup: Speedup | None) -> dict[str, float | None] | None:
    if speedup is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(speedup).items()}

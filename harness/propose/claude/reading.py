"""What the model may read of a search: sources, build logs, samples, the ledger."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from baseline.variant import Variant
from harness.candidate import Status
from harness.ledger import Row, load_rows
from harness.propose.claude.tools import (
    Arguments,
    ReadBuildErrors,
    ReadLedger,
    ReadSanitizer,
    ReadTiming,
    ReadVariant,
)
from harness.run_folder import candidate_folder

LONGEST = 12_000  # characters of one answer: a compiler can say more than a model can use
IDENTITY = re.compile(r"[0-9a-f]{12}")
STAGES = ("build_s", "check_s", "bench_s", "engine_s", "seconds")


class Unreadable(Exception):
    """The model asked for something that is not there. The message, one line, goes back to it."""


class Reading:
    """Reads a run's folder and the variants on its shelf, and nothing else."""

    def __init__(self, run: Path, shelf: Mapping[str, Mapping[str, Variant]]) -> None:
        self._run, self._shelf = run, shelf

    def answer(self, asked: Arguments) -> str:
        """What a read-only tool gives. `Unreadable` where there is no such thing."""
        match asked:
            case ReadVariant(op=op, name=name):
                return cut(self.source(op, name))
            case ReadBuildErrors(candidate=identity):
                return cut(self.build_log(identity) or "the compiler said nothing")
            case ReadTiming(candidate=identity):
                return cut(self.timing(identity))
            case ReadSanitizer(candidate=identity):
                return cut(self.check(identity))
            case ReadLedger(op=op, status=status, last=last):
                return cut(self.rows(op, status, last))
        raise TypeError(f"{asked!r} reads nothing")

    def source(self, op: str, name: str) -> str:
        """The text of a variant's file."""
        variants = self._shelf.get(op, {})
        if name not in variants:
            raise Unreadable(f"{op} has no variant {name!r}; it has {', '.join(variants) or 'none'}")
        return variants[name].path.read_text()

    def build_log(self, identity: str) -> str:
        """What the compiler said about a candidate; '' where it said nothing."""
        log = self._folder(identity) / "build.log"
        return log.read_text() if log.is_file() else ""

    def timing(self, identity: str) -> str:
        """A candidate's seconds by stage, and the samples that decided."""
        row = next((row for row in reversed(self._rows()) if row.id == identity), None)
        if row is None:
            raise Unreadable(f"the ledger has no candidate {identity!r}")
        samples = self._samples(identity)
        told = [f"{name}: {getattr(row, name):.2f}" for name in STAGES]
        told += _arms("launch, microseconds", samples.get("benched"), "champion_s", "candidate_s", 1e6)
        told += _arms("decode, tokens/s", samples.get("engine"), "champion_tokens_per_s", "candidate_tokens_per_s", 1)
        return "\n".join([*told, line(row)])

    def check(self, identity: str) -> str:
        """What the check stage found in a candidate."""
        checked = self._samples(identity).get("checked")
        if not checked:
            return "it was not checked"
        errors = (f"{name}: error {error} of what is allowed" for name, error in checked["errors"].items())
        failure = (checked["failure"] or {}).get("reason", "nothing wrong")
        return "\n".join([failure, *checked["findings"], *errors])

    def rows(self, op: str, status: str, last: int) -> str:
        """Rows of the ledger, the newest last."""
        if status and status not in tuple(Status):
            raise Unreadable(f"there is no status {status!r}; there are {', '.join(Status)}")
        found = [row for row in self._rows() if op in ("", row.op) and status in ("", row.status)]
        return "\n".join(line(row) for row in found[-last:] if last > 0) or "no such row"

    def _rows(self) -> list[Row]:
        return load_rows(self._run / "ledger.tsv")

    def _folder(self, identity: str) -> Path:
        """An identity is the model's word: no path is made of anything else."""
        folder = candidate_folder(self._run, identity)
        if not IDENTITY.fullmatch(identity) or not folder.is_dir():
            raise Unreadable(f"there is no candidate {identity!r}")
        return folder

    def _samples(self, identity: str) -> Mapping[str, Any]:
        path = self._folder(identity) / "samples.json"
        if not path.is_file():
            raise Unreadable(f"candidate {identity} is not judged yet")
        return dict(json.loads(path.read_text()))


def line(row: Row) -> str:
    """A row of the ledger in one line, for a prompt."""
    what = f"{row.id} {row.proposer}: {row.op} {row.variant} {row.tunables}".strip()
    speed = "not timed" if row.speedup != row.speedup else _interval(row.speedup, row.speedup_low, row.speedup_high)
    engine = "" if row.engine_speedup != row.engine_speedup else f", engine {row.engine_speedup:.3f}x"
    why = f": {_one_line(row.reason, 300)}" if row.reason else ""
    return f"{what} | {row.status} at {row.stage}{why} | {speed}{engine} | {_one_line(row.hypothesis, 300)}"


def cut(text: str) -> str:
    """`text`, its middle left out where it is too long."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[... {len(text) - LONGEST} characters left out ...]\n{text[-half:]}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f}x ({low:.3f} to {high:.3f})"


def _one_line(text: str, longest: int) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= longest else f"{joined[:longest]}..."


def _arms(what: str, stage: Mapping[str, Any] | None, champion: str, candidate: str, unit: float) -> list[str]:
    """The medians of both arms of a stage; nothing where it was not reached."""
    if not stage or not stage[champion] or not stage[candidate]:
        return []
    ours, theirs = (unit * median(stage[arm]) for arm in (candidate, champion))
    return [f"{what}: candidate {ours:.2f}, champion {theirs:.2f} (medians of {len(stage[candidate])})"]

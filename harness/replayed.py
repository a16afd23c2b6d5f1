"""The outcomes of a recorded run in place of the judge: a search policy is tried without compiling or measuring."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from baseline.variant import Variant
from harness.candidate import ENGINE_PARTS, MEASURED, Candidate, Failure, Speedup, Stage, Status, changed_part
from harness.judge import Verdict
from harness.keep import decide
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.propose.replay import recorded_rows, source
from harness.rows import to_row
from harness.shelf import Shelf

Change = tuple[str, str, str]  # op, source text and tunables (JSON); 'io' or 'layout', '' and what it is


class Record:
    """What a run found out, by what was changed, whatever stood beside it.

    A recorded speed-up is over the champion of its time. All are put on one scale, so that a candidate can be told what
    it would have been against another champion: a kernel's speed beside other kernels is taken to be the same.
    """

    def __init__(self, run: Path, shelf: Shelf, min_gain: float) -> None:
        """UsageError where `run` holds no search, CheckError where its record is damaged."""
        self._shelf, self._min_gain = shelf, min_gain
        self._rows: dict[Change, Row] = {}
        self._speeds: dict[Change, float] = {}  # over the seed
        champions: dict[str, float] = {}
        for row in recorded_rows(run):
            change = row.op, "" if row.op in ENGINE_PARTS else source(run, row, shelf.target), row.tunables
            self._rows[change] = row
            self._speeds[change] = champions.get(row.op, 1.0) * row.speedup
            if row.status is Status.KEPT:
                champions[row.op] = self._speeds[change]

    def evaluate(self, candidate: Candidate, seed: Candidate, champion: Candidate) -> Row | None:
        """The recorded row of what a candidate changed, its speed-up over this champion's; None where there is none."""
        change = self._change(candidate, candidate.changed)
        row = self._rows.get(change)
        old = self._speed(champion, seed, candidate.changed)
        if row is None or old is None:
            return None
        told = replace(row, id=candidate.id, parent=candidate.parent, proposer=candidate.proposer)
        told = replace(told, variant=changed_part(candidate)[0], hypothesis=candidate.hypothesis)
        return self._against(told, self._speeds[change] / old) if row.status in MEASURED else told

    def _against(self, row: Row, speedup: float) -> Row:
        """A row with another speed-up; its interval keeps its width, and the keep rule decides again.

        What was only too slow for the engine stays so.
        """
        scale = speedup / row.speedup
        if math.isclose(scale, 1.0):
            return row
        moved = Speedup(speedup, row.speedup_low * scale, row.speedup_high * scale)
        row = replace(row, speedup=moved.value, speedup_low=moved.low, speedup_high=moved.high)
        if row.stage is Stage.ENGINE and row.op not in ENGINE_PARTS and row.status is not Status.KEPT:
            return row
        failure = decide(moved, self._min_gain)
        if failure is None:
            return replace(row, status=Status.KEPT, reason="")
        return replace(row, status=failure.status, reason=failure.reason)

    def _speed(self, champion: Candidate, seed: Candidate, part: str) -> float | None:
        if self._change(champion, part) == self._change(seed, part):
            return 1.0
        return self._speeds.get(self._change(champion, part))

    def _change(self, candidate: Candidate, part: str) -> Change:
        variant, tunables = changed_part(replace(candidate, changed=part))
        return part, "" if part in ENGINE_PARTS else _text(self._shelf[part][variant]), tunables


def _text(variant: Variant) -> str:
    return variant.path.read_text()


def search_record(proposer: Proposer, seed: Candidate, record: Record, candidates: int) -> list[Row]:
    """The rows of a search in which the record judges: a policy is as good as the product of what it kept.

    What the record does not know counts for nothing: the proposer is told that it cannot be built.
    """
    champion, rows, known = seed, list[Row](), list[Row]()
    while len(known) < candidates:
        candidate = proposer.propose(History(seed, champion, rows))
        if candidate is None:
            break
        row = record.evaluate(candidate, seed, champion)
        rows.append(row or _unknown(candidate))
        proposer.observe(candidate, rows[-1])
        if row is not None:
            known.append(row)
            champion = candidate if row.status is Status.KEPT else champion
    return known


def gain(rows: Sequence[Row]) -> float:
    """The speed-up over the seed that a search reached, all ops together: the product of what was kept."""
    return math.prod(row.speedup for row in rows if row.status is Status.KEPT)


def _unknown(candidate: Candidate) -> Row:
    return to_row(candidate, Verdict(failure=Failure(Status.FAILED_BUILD, "not in the record")), 0.0, 0.0)

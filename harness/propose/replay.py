"""Proposals from a recorded run, in its order: its kernels are put on the shelf, and tried beside today's champion."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from baseline.errors import CheckError, UsageError
from baseline.variant import suffix_of
from harness.ahead import beside
from harness.candidate import ENGINE_PARTS, LAYOUT, Candidate, Configuration, KernelSpec, changed_part
from harness.ledger import Row, load_rows
from harness.propose.admission import shelved
from harness.propose.base import History, Proposer
from harness.run_folder import candidate_folder, load_candidate
from harness.shelf import Shelf


class Replay(Proposer):
    """Proposes what a run tried: a kernel or a layout once, an I/O policy as often as the run did, beside whatever
    kernels."""

    def __init__(self, run: Path, shelf: Shelf, parts: Sequence[str]) -> None:
        """`parts`: the ops, 'io' and 'layout', that may be changed; what the run tried beyond them is left out.

        UsageError where `run` holds no search for the shelf's target, or one of its kernels is not sound here;
        CheckError where its record is damaged.
        """
        self._shelf = shelf
        self._recorded = [self._read(run, row) for row in recorded_rows(run) if row.op in parts]

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        tried = Counter(row.kernel for row in history.rows)
        tried.update((candidate.changed, *changed_part(candidate)) for candidate in history.pending)
        for recorded in self._recorded:
            change = recorded.changed, *changed_part(recorded)
            if tried[change]:
                tried[change] -= 1
            elif (candidate := self._again(recorded, history)) is not None:
                return candidate
        return None

    def observe(self, candidate: Candidate, row: Row) -> None:
        """Learns nothing: the record says what comes next."""

    def withdraw(self, candidate: Candidate) -> None:
        """Learns nothing: what was not judged is still to be proposed."""

    def _again(self, recorded: Candidate, history: History) -> Candidate | None:
        """A recorded candidate beside the champion; None where that is known."""
        if _known(recorded.changed, recorded.configuration, history):
            return None
        candidate = beside(recorded, history.champion, self._shelf)
        return None if candidate.id in history.ids else replace(candidate, parent=history.champion.id)

    def _read(self, run: Path, row: Row) -> Candidate:
        """The candidate of a row; its kernel has the name that it has on the shelf."""
        recorded = load_candidate(run, row.id)
        configuration = recorded.configuration
        if row.op not in ENGINE_PARTS:
            text = source(run, row, self._shelf.target)
            variant = shelved(row.op, text, self._shelf) or self._shelf.add(row.op, row.variant, text)
            spec = KernelSpec(variant.name, json.loads(row.tunables)).settled(variant)
            configuration = configuration.with_kernel(row.op, spec)
        return replace(recorded, proposer="replay", configuration=configuration)


def _known(part: str, configuration: Configuration, history: History) -> bool:
    """Whether a kernel or a layout was tried, whatever stood beside it."""
    if part == LAYOUT:
        return configuration.layout is not None and history.knows_layout(configuration.layout)
    return part not in ENGINE_PARTS and history.knows(part, configuration.kernels[part])


def recorded_rows(run: Path) -> list[Row]:
    """The rows of a recorded search, without the seed's. UsageError where there is none."""
    rows = load_rows(run / "ledger.tsv")
    if not rows:
        raise UsageError(f"{run} holds no recorded search: it has no ledger.tsv with rows")
    return rows[1:]


def source(run: Path, row: Row, target: str) -> str:
    """The text of the kernel that a recorded candidate changed. CheckError where the record has it not."""
    path = candidate_folder(run, row.id) / f"{row.op}{suffix_of(target, row.variant)}"
    try:
        return path.read_text()
    except OSError as error:
        raise CheckError(f"{path}: the record of a search for {target} should hold it: {error.strerror}") from None

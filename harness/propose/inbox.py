"""Proposals by hand: variant files that a person or a coding agent drops into a folder, answered beside them."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from baseline.errors import UsageError
from baseline.variant import SUFFIXES, Choice, Variant
from harness.answer import Answer, of_row, unsound
from harness.candidate import Candidate, KernelSpec, identify
from harness.costs import Part, spent_on
from harness.ledger import Row
from harness.likeness import split
from harness.propose.admission import admitted
from harness.propose.base import History, Proposer
from harness.settings import writable
from harness.shelf import Shelf

POLL_S = 0.5  # between two looks into the folder
SETTLED_S = 1.0  # a file that was written to more recently may not be whole yet


class Inbox(Proposer):
    """Each file becomes a candidate once, by its content; a file that is changed is a new one.

    `NAME.answer.json` beside a file says what became of it, and of which content.
    """

    def __init__(self, folder: Path, shelf: Shelf, parts: Sequence[str], patience_s: float) -> None:
        """`parts`: the ops that may be changed. An empty folder is watched for `patience_s` before the proposer gives
        up. UsageError where answers cannot be written."""
        self._folder, self._shelf, self._parts, self._patience_s = writable(folder), shelf, parts, patience_s
        self._files: dict[str, tuple[Path, str]] = {}  # file and digest of the candidates that are not judged yet

    @property
    def _targets(self) -> tuple[str, ...]:
        """Those that the search can run: Metal's kernels on CUDA too, through a header."""
        return (self._shelf.target, "metal") if self._shelf.target == "cuda" else (self._shelf.target,)

    def propose(self, history: History) -> Candidate | None:
        """The next file's candidate, waiting for one if need be; never while another candidate waits to be judged."""
        until = time.monotonic() + self._patience_s
        while True:
            candidate = next(self._candidates(history), None)
            if candidate is not None or history.pending or time.monotonic() >= until:
                return candidate
            with spent_on(Part.WAITING):
                time.sleep(POLL_S)

    def observe(self, candidate: Candidate, row: Row) -> None:
        """Answers beside the file."""
        if (known := self._files.pop(candidate.id, None)) is not None:
            _answer(*known, of_row(row))

    def withdraw(self, candidate: Candidate) -> None:
        """The file may be proposed again."""
        self._files.pop(candidate.id, None)

    def _candidates(self, history: History) -> Iterator[Candidate]:
        """Of the files that were not tried; those that were, or that cannot be, are answered."""
        for path, text, digest in self._new_files():
            try:
                variant = self._variant(path, text, history)
                spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
                if history.knows(variant.op, spec):
                    self._answer_again(path, digest, variant.op, spec, history)
                    continue
            except UsageError as error:
                reason = str(error).replace(f"{self._shelf.kernels}/", "")  # where the run keeps it is of no use
                _answer(path, digest, unsound(reason))
                continue
            candidate = self._candidate(variant, spec, history.champion)
            self._files[candidate.id] = path, digest
            yield candidate

    def _answer_again(self, path: Path, digest: str, op: str, spec: KernelSpec, history: History) -> None:
        """From the ledger: of a second file with the same content, or after a kill. UsageError for the seed's own."""
        if spec == history.seed.configuration.kernels[op]:
            raise UsageError(f"it is {op}'s kernel that the search started from")
        rows = [row for row in history.rows if row.kernel == (op, *spec.written())]
        if rows:  # else it waits to be judged
            _answer(path, digest, of_row(rows[-1]))

    def _new_files(self) -> Iterator[tuple[Path, str, str]]:
        """The files that are whole and not answered, by name, with text and digest."""
        waiting = {digest for _, digest in self._files.values()}
        suffixes = [SUFFIXES[target] for target in self._targets]
        for path in sorted(file for file in self._folder.glob("*") if file.suffix in suffixes):
            try:
                content, age_s = path.read_bytes(), time.time() - path.stat().st_mtime
            except FileNotFoundError:  # taken away again
                continue
            digest = xxhash.xxh3_64_hexdigest(content)
            if age_s >= SETTLED_S and digest not in waiting and not _answered(path, digest):
                yield path, content.decode(errors="replace"), digest

    def _variant(self, path: Path, text: str, history: History) -> Variant:
        """The file as a variant on the shelf. UsageError says why it is none, or none that may be tried."""
        header, _ = split(text)
        op, target = header.get("op"), header.get("target")
        if not isinstance(op, str) or op not in self._parts:
            raise UsageError(f"op is {op!r}; this search changes {', '.join(self._parts)}")
        if target not in self._targets:
            raise UsageError(f"target is {target!r}; this search is for {' and '.join(self._targets)}")
        if path.suffix != SUFFIXES[target]:
            raise UsageError(f"target is {target!r}, whose files end with {SUFFIXES[target]}")
        return admitted(op, path.stem, text, self._shelf, history.rows)

    def _candidate(self, variant: Variant, spec: KernelSpec, champion: Candidate) -> Candidate:
        configuration = champion.configuration.with_kernel(variant.op, spec)
        identity = identify(configuration, self._shelf)
        return Candidate(identity, champion.id, "inbox", variant.hypothesis, configuration, variant.op)


def answer_file(path: Path) -> Path:
    """Where a file is answered."""
    return path.with_name(f"{path.name}.answer.json")


def _answer(path: Path, digest: str, answer: Answer) -> None:
    """Written whole or not at all: whoever waits for it may read it at once."""
    partial = answer_file(path).with_suffix(".partial")
    partial.write_text(json.dumps({"content": digest, **answer.to_json()}, indent=1) + "\n")
    partial.replace(answer_file(path))


def _answered(path: Path, digest: str) -> bool:
    try:
        return bool(json.loads(answer_file(path).read_text())["content"] == digest)
    except (OSError, ValueError, KeyError, TypeError):  # none, or not one of ours
        return False

"""Whether the text of a new kernel may become a candidate: it must be no near-duplicate and repeat no refuted idea."""

from collections.abc import Sequence

from baseline.errors import UsageError
from baseline.variant import Variant
from harness.answer import PASSED
from harness.ledger import Row
from harness.likeness import split, twin
from harness.refutations import turned_down
from harness.shelf import Shelf


class Repetition(UsageError):
    """A kernel that is a near-duplicate of another, or repeats a refuted idea. The message is one line."""


def admitted(op: str, name: str, text: str, shelf: Shelf, rows: Sequence[Row]) -> Variant:
    """The variant with this text: the shelf's own, or else a new one, put there.

    UsageError, in one line, when it is no sound variant; `Repetition` when it need not be tried.
    """
    if (same := shelved(op, text, shelf)) is not None:
        return same
    if refused := refusal(op, text, shelf, rows):
        raise Repetition(refused)
    return shelf.add(op, name, text)


def shelved(op: str, text: str, shelf: Shelf) -> Variant | None:
    """The variant of the shelf that has exactly this text."""
    return next((variant for variant in shelf[op].values() if variant.path.read_text() == text), None)


def refusal(op: str, text: str, shelf: Shelf, rows: Sequence[Row]) -> str:
    """Why a variant's text is refused, in one line; '' when it is not.

    A repaired kernel may be the twin of the one that failed. UsageError when the text has no header that can be read.
    """
    failed = {row.variant for row in rows if row.op == op and row.status not in PASSED}
    others = {name: variant.path.read_text() for name, variant in shelf[op].items() if name not in failed}
    if (found := twin(text, others)) is not None:
        return found.line()
    header, _ = split(text)
    return turned_down(str(header.get("hypothesis", "")), op, shelf.target, rows)

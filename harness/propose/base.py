"""What every proposer is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from baseline.layout import Layout
from harness.candidate import LAYOUT, Candidate, KernelSpec, written_layout
from harness.ledger import Row
from harness.propose.claude.event import Spent


@dataclass(frozen=True)
class History:
    """All that a proposer may know: what the search started from, the champion, the ledger so far.

    pending: what was proposed and is not judged yet.
    """

    seed: Candidate
    champion: Candidate
    rows: Sequence[Row]
    pending: Sequence[Candidate] = ()

    @property
    def ids(self) -> set[str]:
        """Of all candidates that are known: none of them is proposed again."""
        return {c.id for c in (self.seed, self.champion, *self.pending)} | {row.id for row in self.rows}

    def knows(self, op: str, spec: KernelSpec) -> bool:
        """Whether a kernel was tried, or is about to be, whatever stood beside it: one that lost against an earlier
        champion of its op needs no second chance beside other kernels."""
        known = {c.configuration.kernels[op].written() for c in (self.seed, self.champion, *self.pending)}
        return spec.written() in known or (op, *spec.written()) in {row.kernel for row in self.rows}

    def knows_layout(self, layout: Layout) -> bool:
        """Whether a layout was tried, or is about to be, whatever it was called and stood beside."""
        known = [c.configuration.layout for c in (self.seed, self.champion, *self.pending)]
        content = written_layout(layout)[1]
        tried = any(row.op == LAYOUT and row.tunables == content for row in self.rows)
        return tried or any(other is not None and other.lies_as(layout) for other in known)


class Proposer(ABC):
    """Proposes candidates, and learns what became of them."""

    @abstractmethod
    def propose(self, history: History) -> Candidate | None:
        """A candidate that is neither in the ledger nor pending; None when there is nothing left to try."""

    @abstractmethod
    def observe(self, candidate: Candidate, row: Row) -> None:
        """Is told the outcome of a candidate that it proposed."""

    @abstractmethod
    def withdraw(self, candidate: Candidate) -> None:
        """Is told that a candidate that it proposed will not be judged."""

    @property
    def at_once(self) -> bool:
        """Whether it proposes without waiting for anybody. Who waits is asked only when nothing is to be measured."""
        return True

    def spent(self, candidate: Candidate) -> Spent | None:
        """What a candidate that it proposed took of a language model; None where none was asked."""
        return None

    def close(self) -> None:  # noqa: B027  # most hold nothing that must be let go
        """The search is over."""

"""What every proposer is: two methods."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from harness.candidate import Candidate
from harness.ledger import Row


@dataclass(frozen=True)
class History:
    """All that a proposer may know: what the search started from, the champion, and the ledger so far."""

    seed: Candidate
    champion: Candidate
    rows: Sequence[Row]


class Proposer(ABC):
    """Proposes candidates, and learns what became of them."""

    @abstractmethod
    def propose(self, history: History) -> Candidate | None:
        """A candidate that the ledger does not hold yet; None when there is nothing left to try."""

    @abstractmethod
    def observe(self, candidate: Candidate, row: Row) -> None:
        """Is told the outcome of the candidate that it proposed last."""

"""What a search tells whoever watches it."""

from typing import Protocol

from harness.aa import SelfContest
from harness.candidate import Candidate, Stage
from harness.ledger import Row


class Observer(Protocol):
    """Callbacks of a running search, in its own thread, between the measurements and never during one."""

    def on_stage(self, candidate: Candidate, stage: Stage) -> None:
        """`candidate` enters `stage`."""

    def on_row(self, row: Row) -> None:
        """A candidate's outcome was recorded."""

    def on_champion(self, candidate: Candidate, row: Row) -> None:
        """There is a new champion (the first is the seed)."""

    def on_noise(self, run: SelfContest) -> None:
        """An A/A run has said what gains this machine can show."""


class Silent:
    """An observer that shows nothing."""

    def on_stage(self, candidate: Candidate, stage: Stage) -> None:
        """Shows nothing."""

    def on_row(self, row: Row) -> None:
        """Shows nothing."""

    def on_champion(self, candidate: Candidate, row: Row) -> None:
        """Shows nothing."""

    def on_noise(self, run: SelfContest) -> None:
        """Shows nothing."""

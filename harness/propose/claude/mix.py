"""Several models in one search: which of them is asked next, by what came of the candidates of each."""

from collections.abc import Sequence

from harness.candidate import Status
from harness.ledger import Row
from harness.propose.bandit import FAILED, Bandit
from harness.study import objective


class Mix:
    """The models that may be asked; a bandit chooses among them."""

    def __init__(self, models: Sequence[str]) -> None:
        self._models = list(models)
        self._failed: list[str] = []  # the model of each conversation that came to no candidate; a new search forgives

    def __bool__(self) -> bool:
        """Whether any is left."""
        return bool(self._models)

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def choose(self, rows: Sequence[Row], asked: Sequence[str] = ()) -> str:
        """The model that promises most, by the log speed-ups of its candidates; one that failed counts as FAILED.

        `asked`: the models that are asked at the same time, as if they had brought nothing: so all get their turn.
        """
        bandit = Bandit()
        for row in rows:
            if row.model in self._models and row.status is not Status.UNMEASURED:
                gain = objective(row)
                bandit.observe(row.model, FAILED if gain is None else gain)
        for model, gain in [*((model, FAILED) for model in self._failed), *((model, 0.0) for model in asked)]:
            bandit.observe(model, gain)
        return max(self._models, key=bandit.score)

    def failed(self, model: str) -> None:
        """Is told of a conversation that came to no candidate."""
        self._failed.append(model)

    def drop(self, model: str) -> None:
        """A model that is not asked any more: what is left of the budget does not suffice for it."""
        self._models = [other for other in self._models if other != model]

"""The Optuna study of one search: ask and tell, kept in SQLite beside the ledger."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from harness.candidate import MEASURED
from harness.ledger import Row

CANDIDATE = "candidate"  # the trial's attribute that holds the candidate's id


class Study:
    """Trials of one search; the objective is the log speed-up over the champion, to be maximised."""

    def __init__(self, path: Path, seed: int) -> None:
        """Opens or creates the SQLite file at `path`."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="search",
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
            load_if_exists=True,
        )

    def recover(self, rows: Sequence[Row]) -> None:
        """Ends the trials that a killed search left open: with the ledger's outcome if it has one, else as failed."""
        recorded = {row.id: row for row in rows}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._finish(trial.number, recorded.get(trial.user_attrs.get(CANDIDATE, "")))
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._finish(self._study.ask().number, None)  # only a running trial can be ended

    def ask(self, fixed: Mapping[str, object] | None = None) -> Trial:
        """A new trial; the parameters named in `fixed` will have those values."""
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        trial: Trial = self._study.ask()
        return trial

    def tell(self, trial: Trial, row: Row | None) -> None:
        """Ends a trial with its candidate's row; None: it never became a candidate."""
        self._finish(trial.number, row)

    def _finish(self, number: int, row: Row | None) -> None:
        value = objective(row)
        if value is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def states(self) -> list[TrialState]:
        """The state of each trial, oldest first."""
        return [trial.state for trial in self._study.get_trials(deepcopy=False)]


def objective(row: Row | None) -> float | None:
    """The log speed-up over the champion of its time; None for a candidate without a sound measurement."""
    if row is None or row.status not in MEASURED:
        return None
    return math.log(row.speedup)

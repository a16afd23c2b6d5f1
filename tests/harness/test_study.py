import math

import pytest
from optuna.trial import TrialState

from harness.candidate import Status
from harness.study import CANDIDATE, Study, objective
from tests.harness.rows import row


def states(path):
    return Study(path, seed=0).states()


def test_fixed_parameters_are_suggested(tmp_path):
    study = Study(tmp_path / "study.db", seed=0)
    for name in ("a", "b", "c", "a"):
        trial = study.ask({"variant": name})
        assert trial.suggest_categorical("variant", ["a", "b", "c"]) == name
        study.tell(trial, row(speedup=1.0))
    assert study.states() == [TrialState.COMPLETE] * 4


def test_trials_survive_the_process(tmp_path):
    study = Study(tmp_path / "study.db", seed=0)
    study.tell(study.ask(), row(speedup=2.0))
    study.tell(study.ask(), None)
    assert states(tmp_path / "study.db") == [TrialState.COMPLETE, TrialState.FAIL]


def test_recover_ends_what_a_kill_left(tmp_path):
    study = Study(tmp_path / "study.db", seed=0)
    recorded, lost = study.ask(), study.ask()
    recorded.set_user_attr(CANDIDATE, "recorded")
    lost.set_user_attr(CANDIDATE, "lost")
    study._study.enqueue_trial({"variant": "a"})  # a kill between enqueue and ask
    again = Study(tmp_path / "study.db", seed=0)
    again.recover([row(id="recorded", speedup=2.0)])
    assert again.states() == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]


@pytest.mark.parametrize("status", [Status.WRONG, Status.CRASHED, Status.TIMEOUT, Status.FAILED_BUILD])
def test_a_failure_has_no_objective(status):
    assert objective(row(status=status, speedup=3.0)) is None


def test_objective_is_the_log_speedup():
    assert objective(row(speedup=3.0)) == pytest.approx(math.log(3))
    assert objective(row(speedup=0.5, status=Status.TOO_SLOW)) == pytest.approx(-math.log(2))

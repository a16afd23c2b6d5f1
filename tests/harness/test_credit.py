"""What each model has earned: a part of what was confirmed, and of nothing else."""

import math

import pytest

from harness.candidate import Status
from harness.confirm import Summary
from harness.costs import Costs
from harness.credit import credited
from harness.display import print_summary
from harness.propose.claude.call import Call
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage
from harness.report import write_report
from tests.harness.rows import row
from tests.harness.test_report import write

SEED = row(op="", speedup=1.0)
A, B = "model a", "model b"


def step(model, speedup, op="qmatvec", status=Status.KEPT):
    return row(op=op, model=model, speedup=speedup, status=status, usd=0.5 if model else 0.0)


ROWS = [
    SEED,
    step(A, 2.0),
    step("", 3.0),  # of the proposer without a model
    step(B, 1.5),
    step(A, 1.5, "expert_down"),
    step(B, 0.9, status=Status.TOO_SLOW),
    step(B, math.nan, status=Status.WRONG),
]
CONFIRMED = {"qmatvec": 9.0, "expert_down": 1.4}


def of(rows, confirmed, events=(), calls=()):
    return {credit.model: credit for credit in credited(rows, events, calls, confirmed)}


def test_a_confirmed_gain_is_shared_out_by_the_steps_that_made_it():
    found = of([SEED, step(A, 2.0), step(B, 4.0)], {"qmatvec": 8.0})
    assert (found[A].gains, found[B].gains) == ({"qmatvec": pytest.approx(2.0)}, {"qmatvec": pytest.approx(4.0)})


def test_a_gain_that_was_confirmed_smaller_is_smaller_for_all():
    found = of([SEED, step(A, 2.0), step(B, 4.0)], {"qmatvec": 1.0})
    assert found[A].gains["qmatvec"] == found[B].gains["qmatvec"] == 1.0


def test_what_no_model_proposed_is_no_models():
    found = of(ROWS, CONFIRMED)
    own = found[A].gains["qmatvec"] * found[B].gains["qmatvec"]
    assert own == pytest.approx(9.0 ** (math.log(3) / math.log(9))) and "expert_down" not in found[B].gains
    assert found[A].gains["expert_down"] == pytest.approx(1.4) and found.keys() == {A, B}


def test_what_was_not_confirmed_earns_nothing():
    assert all(credit.gains == {} for credit in of(ROWS, {}).values())


def test_candidates_calls_and_what_came_to_nothing_are_counted_for_each():
    lost = Event(Kind.CUT, "lost", Usage(output=7), 0.25, B)
    calls = [Call(number, model, Usage(), 0.5) for number, model in enumerate((A, A, B, B, B, B, "model c"), 1)]
    found = of(ROWS, CONFIRMED, [lost], calls)
    assert [(c.candidates, c.kept, c.took.calls) for c in found.values()] == [(2, 2, 2), (3, 1, 4), (0, 0, 1)]
    assert (found[A].took.usd, found[B].took.usd, found[B].took.output_tokens) == (1.0, 1.75, 7)


def test_it_stands_in_the_table_the_summary_and_its_json(tmp_path, capfd):
    models = credited(ROWS, [], [], CONFIRMED)
    _, table = write_report(write(tmp_path, ROWS), 1.4, models)
    found = Summary(tmp_path, 6, 4, 0, "0123456789ab", 1.4, 1.3, None, False, "", 60.0, Costs(), models=models)
    print_summary(found, None)
    said = capfd.readouterr().err
    for credit in models:
        assert f"- {credit.line()}\n" in table.read_text() and credit.line() in said
    assert "model a: 2 candidates, 2 kept; confirmed: qmatvec 2.00x, expert_down 1.40x; " in said
    assert [made["model"] for made in found.to_json()["models"]] == [A, B]

"""The control of a search: what the best of as many proposals comes to of which none is built upon another."""

import itertools
import json
import math
from pathlib import Path

import pytest

from harness.candidate import Status
from harness.confirm import Summary
from harness.control import HEADLINE, controls, written
from harness.costs import Costs
from harness.display import print_summary
from harness.points import points
from harness.report import write_report
from tests.harness.rows import row
from tests.harness.test_report import write

SEED = row(id="seed", op="", speedup=1.0)
NAN = math.nan


def step(name, parent, speedup, status=Status.KEPT, variant=None, op="qmatvec"):
    return row(id=name, parent=parent, op=op, variant=variant or name, status=status, speedup=speedup)


def control(rows, own=()):
    """Of qmatvec; `own`: what the search wrote, all of it where it is not said."""
    mine = {("qmatvec", made.variant) for made in rows} if own == () else own
    return next(one for one in controls(points([SEED, *rows]), mine) if one.op == "qmatvec")


def expected_best(gains, n):
    """By counting all draws."""
    draws = [*itertools.product(map(math.log, gains), repeat=n)]
    return math.exp(math.fsum(map(max, draws)) / len(draws))


def test_the_best_of_n_is_what_counting_all_draws_gives():
    rows = [step("a", "seed", 2.0), step("b", "a", 1.5), step("c", "b", 0.5, Status.TOO_SLOW)]
    found = control(rows)
    assert found.curve == pytest.approx([expected_best([2.0, 1.5, 1.0], n) for n in (1, 2, 3)])
    assert found.largest == pytest.approx(2.0) and found.search == pytest.approx((2.0, 3.0, 3.0))


def test_a_search_that_builds_upon_what_it_found_goes_beyond_its_largest_step():
    found = control([step(name, parent, 1.3) for parent, name in itertools.pairwise(["seed", *"abcdef"])])
    assert found.curve == pytest.approx([1.3] * 6) and found.search[-1] == pytest.approx(1.3**6)


def test_one_lucky_proposal_is_no_merit_of_the_search():
    losers = [step(name, "lucky", 0.9, Status.TOO_SLOW) for name in "abc"]
    found = control([step("lucky", "seed", 8.0), *losers])
    assert (found.search[-1], found.largest) == pytest.approx((8.0, 8.0)) and found.curve[-1] > 4


def test_a_variant_that_was_there_before_counts_by_its_gain_over_the_plain_kernel():
    rows = [step("limbs", "seed", 8.0), step("vector", "limbs", 0.5, Status.TOO_SLOW)]
    assert control(rows, set()).curve[-1] == pytest.approx(expected_best([8.0, 4.0], 2))
    assert control(rows, {("qmatvec", "vector")}).curve[-1] == pytest.approx(expected_best([8.0, 1.0], 2))
    tuned = [*rows, step("tuned", "limbs", 1.25, variant="limbs")]
    assert control(tuned, set()).curve[-1] == pytest.approx(expected_best([8.0, 4.0, 1.25], 3))


def test_a_step_is_over_its_own_parent_which_need_not_be_the_champion():
    rows = [step("a", "seed", 2.0), step("b", "a", 0.75, Status.TOO_SLOW), step("c", "b", 1.5)]
    assert control(rows).curve[-1] == pytest.approx(expected_best([2.0, 1.0, 2.0], 3))  # 3.0 over the plain kernel


@pytest.mark.parametrize("status", [Status.WRONG, Status.CRASHED, Status.FAILED_BUILD])
def test_a_failure_is_a_draw_that_brings_nothing(status):
    rows = [step("a", "seed", 4.0), step("b", "a", NAN, status), step("c", "b", 2.0)]  # the failed one's repair
    assert control(rows).curve == pytest.approx([expected_best([4.0, 1.0, 2.0], n) for n in (1, 2, 3)])


def test_a_gain_that_could_not_be_shown_is_none():
    rows = [step("a", "seed", 1.1, Status.DISCARDED), step("b", "seed", 1.2)]
    assert control(rows).curve[-1] == pytest.approx(expected_best([1.0, 1.2], 2))
    beside = [step("a", "seed", 2.0), step("b", "a", 0.8, Status.TOO_SLOW), step("c", "b", 1.01, Status.DISCARDED)]
    assert control(beside).curve[-1] == pytest.approx(expected_best([2.0, 1.0, 1.01 / 0.8], 3))  # over b it was shown


def test_what_was_not_measured_is_no_draw_and_ops_do_not_mix():
    waits = step("w", "seed", NAN, Status.UNMEASURED)
    rows = [step("a", "seed", 4.0), waits, step("d", "a", 2.0, op="expert_down")]
    found = {one.op: one for one in controls(points([SEED, *rows]), set())}
    assert {op: len(one.curve) for op, one in found.items()} == {"qmatvec": 1, "expert_down": 1}
    assert controls(points([SEED]), set()) == [] and controls(points([SEED, waits]), set()) == []


def test_what_a_search_wrote_is_in_its_folder(tmp_path: Path):
    for name in ("qmatvec/contract.yaml", "qmatvec/cpu/wide_1.cpp", "layouts/order.yaml"):
        (tmp_path / "kernels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kernels" / name).write_text("")
    assert written(tmp_path) == {("qmatvec", "wide_1"), ("layout", "order")}


def test_it_stands_beside_the_search_in_the_table_the_summary_and_its_json(tmp_path, capfd):
    rows = [SEED, step("a", "seed", 2.0), step("b", "a", 3.0)]
    made = controls(points(rows), {("qmatvec", "a"), ("qmatvec", "b")})
    for name in "ab":
        (tmp_path / "kernels" / "qmatvec" / "cpu").mkdir(parents=True, exist_ok=True)
        (tmp_path / "kernels" / "qmatvec" / "cpu" / f"{name}.cpp").write_text("")
    chart, table = write_report(write(tmp_path, rows))
    line = "qmatvec: the search 6.00x, best of 2 2.71x, of ever so many 3.00x"
    assert chart is not None and f"{HEADLINE}:\n\n- {line}\n" in table.read_text()
    found = Summary(tmp_path, 2, 2, 0, "b", 6.0, 5.0, None, False, "", 60.0, Costs(), control=made)
    print_summary(found, None)
    said = capfd.readouterr().err
    assert HEADLINE in said and line in said
    (told,) = json.loads(json.dumps(found.to_json()["control"]))
    assert (told["op"], told["n"], told["largest"]) == ("qmatvec", 2, pytest.approx(3.0))
    assert told["search_curve"] == pytest.approx([2.0, 6.0]) and told["best_of_n"] == told["best_of_n_curve"][-1] < 3

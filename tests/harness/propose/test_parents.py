"""Who has children: the champion most, a near miss some, who was far behind or wrong none."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.candidate import Candidate, Configuration, KernelSpec, Status
from harness.propose.base import History
from harness.propose.parents import KEPT_ALIVE, branches, parents
from tests.harness.rows import row

OP = "qmatvec"


def spec(number):
    return KernelSpec(f"v{number}", {"ROWS": 1})


def candidate(number, parent=""):
    return Candidate(
        f"{number:012}", parent, "mutate", "", Configuration({OP: spec(number), "expert_down": spec(0)}), OP
    )


def made(number, status, speedup, parent=0):
    kernel = {"op": OP, "variant": f"v{number}", "tunables": json.dumps({"ROWS": 1})}
    return row(id=f"{number:012}", parent=f"{parent:012}", status=status, speedup=speedup, **kernel)


def history(*rows, champion=0):
    seed = row(id=f"{0:012}", op="", variant="", tunables="", status=Status.KEPT, speedup=1.0)
    return History(candidate(0), candidate(champion), [seed, *rows])


def names(history, parts=(OP,)):
    return [parent.configuration.kernels[OP].variant for parent, _ in parents(history, parts)]


def test_at_first_the_champion_alone():
    assert [(p.id, parts) for p, parts in parents(history(), [OP, "io"])] == [(f"{0:012}", [OP, "io"])]


def test_a_near_miss_follows_the_champion_and_overtakes_one_with_many_children():
    near = made(1, Status.DISCARDED, 0.97)
    assert names(history(near)) == ["v0", "v1"]
    more = [made(n, Status.WRONG, math.nan) for n in range(2, 30)]
    assert names(history(near, *more)) == ["v1", "v0"]
    children = [made(n, Status.WRONG, math.nan, parent=1) for n in range(30, 60)]
    assert names(history(near, *more, *children)) == ["v0", "v1"]


@pytest.mark.parametrize(
    ("status", "speedup"),
    [(Status.TOO_SLOW, 0.5), (Status.WRONG, math.nan), (Status.UNMEASURED, math.nan), (Status.CRASHED, math.nan)],
)
def test_who_was_far_behind_or_was_not_measured_has_none(status, speedup):
    assert names(history(made(1, status, speedup))) == ["v0"]


def test_a_value_is_over_the_champion_of_today():
    rows = [made(1, Status.DISCARDED, 0.9), made(2, Status.KEPT, 1.2), made(3, Status.DISCARDED, 0.95, parent=2)]
    found = {b.row.variant: b.value for b in branches(OP, history(*rows, champion=2), Counter())}
    assert found == pytest.approx({"v1": math.log(0.9 / 1.2), "v3": math.log(0.95)})


def test_one_champion_s_branch_is_measured_against_the_next():
    rows = [made(1, Status.KEPT, 1.5), made(2, Status.KEPT, 1.1, parent=1)]
    (first,) = branches(OP, history(*rows, champion=2), Counter())
    assert first.row.variant == "v1" and first.value == pytest.approx(-math.log(1.1))


def test_a_branch_stands_beside_the_champion_s_other_kernels_and_changes_its_own_part():
    (_, (parent, parts)) = parents(history(made(1, Status.DISCARDED, 0.97)), [OP, "expert_down", "io"])
    assert parts == [OP] and parent.id == f"{1:012}"
    assert parent.configuration.kernels == {OP: spec(1), "expert_down": spec(0)}


@given(st.lists(st.tuples(st.sampled_from([Status.DISCARDED, Status.TOO_SLOW]), st.floats(0.2, 1.5)), max_size=30))
def test_the_champion_is_always_among_them_once_and_the_others_are_few(outcomes):
    rows = [made(n, status, speedup) for n, (status, speedup) in enumerate(outcomes, start=1)]
    found = names(history(*rows))
    assert found.count("v0") == 1 and len(found) == len({*found}) <= 1 + KEPT_ALIVE

"""A recorded search proposed again, and its outcomes in place of the judge."""

import json
from dataclasses import replace

import pytest

from baseline.errors import CheckError, UsageError
from baseline.variant import Choice
from harness.candidate import Candidate, KernelSpec, Stage, Status, identify
from harness.propose.base import History
from harness.propose.random import Random
from harness.propose.replay import Replay
from harness.replayed import Record, gain, search_record
from tests.harness.propose.worlds import OPS, World, exhaust, furnish, keep_record, outcome, world

PARTS = (*OPS, "io")
SPEEDS = {"fast": 2.0, "odd": 1.5, "plain": 1.0}  # over the seed


@pytest.fixture
def here(tmp_path) -> World:
    return world(tmp_path / "here")


def change(candidate: Candidate) -> tuple:
    if candidate.changed == "io":
        return ("io", json.dumps(dict(candidate.configuration.io)))
    return (candidate.changed, *candidate.configuration.kernels[candidate.changed].written())


def with_variant(here: World, name: str) -> Candidate:
    """The seed with another variant of qmatvec."""
    spec = KernelSpec(name, Choice.defaults(here.shelf["qmatvec"][name]).tunables)
    configuration = here.seed.configuration.with_kernel("qmatvec", spec)
    return Candidate(identify(configuration, here.shelf), here.seed.id, "test", "", configuration, "qmatvec")


def speed(configuration, part):
    return SPEEDS[configuration.kernels[part].variant] if part in configuration.kernels else 1.0


@pytest.fixture
def recorded(tmp_path):
    """A search that keeps what is faster than its champion: (the run's folder, what was judged)."""
    there = world(tmp_path / "there")
    furnish(there)
    proposer, champion, judged = Random(7, there.shelf, PARTS), there.seed, []
    while (candidate := proposer.propose(History(there.seed, champion, [row for _, row in judged]))) is not None:
        part = candidate.changed
        gained = speed(candidate.configuration, part) / speed(champion.configuration, part)
        row = outcome(candidate, Status.KEPT if gained > 1.02 else Status.DISCARDED, gained)
        judged.append((candidate, row))
        champion = candidate if row.status is Status.KEPT else champion
    return keep_record(tmp_path / "run", there, judged), judged


def test_all_that_was_tried_is_proposed_in_order(here, recorded):
    run, judged = recorded
    rows, champion, again = [], here.seed, []
    proposer = Replay(run, here.shelf, PARTS)
    for _, row in judged:
        candidate = proposer.propose(History(here.seed, champion, rows))
        rows.append(outcome(candidate, row.status))
        again.append(candidate)
        champion = candidate if row.status is Status.KEPT else champion
    assert list(map(change, again)) == [change(candidate) for candidate, _ in judged]
    assert [candidate.id for candidate in again] == [candidate.id for candidate, _ in judged]
    assert proposer.propose(History(here.seed, champion, rows)) is None


def test_a_kernel_that_is_not_on_the_shelf_is_put_there_once(here, recorded):
    run, _ = recorded
    assert set(here.shelf["qmatvec"]) == {"plain"}
    Replay(run, here.shelf, PARTS)
    Replay(run, here.shelf, PARTS)
    assert set(here.shelf["qmatvec"]) == {"plain", "fast", "odd"}


def test_another_kernel_of_the_same_name_is_not_taken_for_it(here, recorded):
    run, _ = recorded
    here.shelf.add("qmatvec", "fast", here.shelf["qmatvec"]["plain"].path.read_text() + ";;")
    proposed = exhaust(Replay(run, here.shelf, ("qmatvec",)), here.seed, [])
    names = {candidate.configuration.kernels["qmatvec"].variant for candidate in proposed}
    assert "fast_2" in names and "fast" not in names


def test_only_the_parts_that_are_searched_are_replayed(here, recorded):
    run, _ = recorded
    assert {c.changed for c in exhaust(Replay(run, here.shelf, ("io",)), here.seed, [])} == {"io"}


def test_a_folder_without_a_search_is_refused(here, tmp_path):
    with pytest.raises(UsageError, match="holds no recorded search"):
        Replay(tmp_path, here.shelf, PARTS)


def test_a_record_that_is_not_whole_is_named(here, recorded):
    run, judged = recorded
    candidate = next(candidate for candidate, _ in judged if candidate.changed == "qmatvec")
    (run / "candidates" / candidate.id / "qmatvec.cpp").unlink()
    with pytest.raises(CheckError, match=rf"{candidate.id}/qmatvec.cpp"):
        Replay(run, here.shelf, PARTS)


def test_the_record_judges_its_own_search_as_it_was(here, recorded):
    run, judged = recorded
    record = Record(run, here.shelf, 0.02)
    rows = search_record(Replay(run, here.shelf, PARTS), here.seed, record, len(judged))
    assert [(row.id, row.status, row.speedup) for row in rows] == [(c.id, r.status, r.speedup) for c, r in judged]
    assert gain(rows) == pytest.approx(SPEEDS["fast"] ** 2)


def test_policies_can_be_compared(here, recorded):
    run, _ = recorded
    record = Record(run, here.shelf, 0.02)
    furnish(here)
    reached = [
        gain(search_record(Random(seed, here.shelf, OPS), here.seed, record, candidates))
        for seed, candidates in ((1, 1), (1, 100))
    ]
    assert reached[0] < reached[1] == pytest.approx(SPEEDS["fast"] ** 2)


def test_an_outcome_against_another_champion_is_decided_again(here, recorded):
    run, _ = recorded
    furnish(here)
    record = Record(run, here.shelf, 0.02)
    fast, odd = (with_variant(here, name) for name in ("fast", "odd"))
    assert record.evaluate(odd, here.seed, here.seed).status is Status.KEPT
    slower = record.evaluate(odd, here.seed, fast)
    assert (slower.status, slower.speedup) == (Status.TOO_SLOW, pytest.approx(0.75))
    assert record.evaluate(fast, here.seed, odd).speedup == pytest.approx(4 / 3)


def test_what_was_not_tried_has_no_outcome(here, recorded):
    run, _ = recorded
    here.shelf.add("qmatvec", "newer", here.shelf["qmatvec"]["plain"].path.read_text() + ";;;")
    newer = with_variant(here, "newer")
    assert Record(run, here.shelf, 0.02).evaluate(newer, here.seed, here.seed) is None


def test_what_failed_fails_against_any_champion(here, tmp_path):
    there = world(tmp_path / "there")
    furnish(there)
    proposed = exhaust(Random(0, there.shelf, ("qmatvec",)), there.seed, [])
    wrong = [(c, outcome(c, Status.WRONG, float("nan"))) for c in proposed]
    run = keep_record(tmp_path / "run", there, wrong)
    rows = search_record(Replay(run, here.shelf, OPS), here.seed, Record(run, here.shelf, 0.02), 10)
    assert [row.status for row in rows] == [Status.WRONG] * len(wrong)


def test_what_slowed_the_engine_stays_so(here, tmp_path):
    there = world(tmp_path / "there")
    furnish(there)
    (first, *_) = exhaust(Random(0, there.shelf, ("qmatvec",)), there.seed, [])
    row = replace(outcome(first, Status.TOO_SLOW, 3.0), stage=Stage.ENGINE)
    run = keep_record(tmp_path / "run", there, [(first, row)])
    (again,) = search_record(Replay(run, here.shelf, OPS), here.seed, Record(run, here.shelf, 0.02), 1)
    assert (again.status, again.stage) == (Status.TOO_SLOW, Stage.ENGINE)

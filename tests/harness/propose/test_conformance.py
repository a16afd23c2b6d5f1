"""What every proposer must hold to. A new one is added to `worlds.PROPOSERS`."""

import random
from collections.abc import Callable

import pytest

from harness.candidate import Configuration, Status, identify
from harness.propose.base import History, Proposer
from tests.harness.propose.worlds import PROPOSERS, World, exhaust, model, outcome, world

Make = Callable[[World], Proposer]


@pytest.fixture(autouse=True)
def a_model(server) -> None:
    """For who asks one."""
    server.otherwise = model


@pytest.fixture(params=PROPOSERS.values(), ids=PROPOSERS.keys())
def make(request) -> Make:
    return request.param


@pytest.fixture
def here(tmp_path) -> World:
    return world(tmp_path / "here")


def changes(old: Configuration, new: Configuration) -> list[str]:
    kernels = [op for op in old.kernels if old.kernels[op] != new.kernels[op]]
    return kernels + (["io"] if old.io != new.io else [])


def test_a_proposal_changes_what_it_says_and_nothing_else(make, here):
    proposed = exhaust(make(here), here.seed, [])
    assert proposed and proposed[0].parent == here.seed.id
    known = {here.seed.id}
    for candidate in proposed:
        assert changes(here.seed.configuration, candidate.configuration) == [candidate.changed]
        assert candidate.parent in known and candidate.hypothesis and candidate.proposer
        known.add(candidate.id)


def test_its_id_is_what_it_is_made_of(make, here):
    proposed = exhaust(make(here), here.seed, [])
    assert [candidate.id for candidate in proposed] == [identify(c.configuration, here.shelf) for c in proposed]


def test_nothing_is_proposed_twice_and_the_end_is_the_end(make, here):
    proposer, rows = make(here), []
    proposed = exhaust(proposer, here.seed, rows)
    assert len({here.seed.id, *(candidate.id for candidate in proposed)}) == len(proposed) + 1
    assert proposer.propose(History(here.seed, here.seed, rows)) is None


def test_what_is_pending_is_not_proposed(make, here):
    """One ahead, as the search asks: while a candidate is judged the next is proposed."""
    proposer, rows, seen = make(here), [], []
    current = proposer.propose(History(here.seed, here.seed, rows))
    while current is not None:
        ahead = proposer.propose(History(here.seed, here.seed, rows, (current,)))
        rows.append(outcome(current))
        proposer.observe(current, rows[-1])
        seen.append(current.id)
        current = ahead
    assert len(set(seen)) == len(seen) > 1


def test_the_child_of_a_champion_keeps_the_rest_of_it(make, here):
    proposer, rows, champion = make(here), [], here.seed
    while (candidate := proposer.propose(History(here.seed, champion, rows))) is not None:
        assert changes(champion.configuration, candidate.configuration) == [candidate.changed]
        assert candidate.parent == champion.id
        rows.append(outcome(candidate, Status.KEPT, 2.0))
        proposer.observe(candidate, rows[-1])
        champion = candidate
    assert len(rows) > 1


@pytest.mark.parametrize("order", range(5))
def test_outcomes_may_come_in_any_order_and_of_anyone(make, here, order):
    draw, proposer, rows, waiting = random.Random(order), make(here), [], []
    for _ in range(12):
        candidate = proposer.propose(History(here.seed, here.seed, rows, waiting))
        waiting += [candidate] if candidate is not None else []
        while waiting and draw.random() < 0.5:
            told = waiting.pop(draw.randrange(len(waiting)))
            if draw.random() < 0.5:
                rows.append(outcome(told))
                proposer.observe(told, rows[-1])
            else:
                proposer.withdraw(told)
                proposer.withdraw(told)
    proposer.observe(here.seed, outcome(told))  # of which it was never asked
    ids = [row.id for row in rows] + [candidate.id for candidate in waiting]
    assert len(set(ids)) == len(ids)


def test_what_is_withdrawn_is_not_lost(make, here, tmp_path):
    everything = {candidate.id for candidate in exhaust(make(here), here.seed, [])}
    again = world(tmp_path / "again")
    proposer = make(again)
    withdrawn = proposer.propose(History(again.seed, again.seed, []))
    proposer.withdraw(withdrawn)
    assert {candidate.id for candidate in exhaust(proposer, again.seed, [])} == everything >= {withdrawn.id}


@pytest.mark.parametrize("judged", range(4))
def test_after_a_kill_it_goes_on_with_what_is_left(make, here, tmp_path, judged):
    """The ledger has what was judged; a candidate was being judged, and nobody told the proposer."""
    everything = [candidate.id for candidate in exhaust(make(here), here.seed, [])]
    again, rows = world(tmp_path / "again"), []
    proposer = make(again)
    for number in range(judged + 1):
        candidate = proposer.propose(History(again.seed, again.seed, rows))
        if number < judged:
            rows.append(outcome(candidate))
            proposer.observe(candidate, rows[-1])
    later = world(tmp_path / "again")
    rest = exhaust(make(later), later.seed, list(rows))
    assert sorted([*(row.id for row in rows), *(candidate.id for candidate in rest)]) == sorted(everything)


def test_the_same_history_gives_the_same_proposals(make, here, tmp_path):
    again = world(tmp_path / "again")
    first, second = (exhaust(make(place), place.seed, []) for place in (here, again))
    assert [candidate.id for candidate in first] == [candidate.id for candidate in second]

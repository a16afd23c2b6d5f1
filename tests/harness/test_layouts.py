"""Layouts in a search, without an engine: on the shelf, in records, and as what proposers propose."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest

from baseline.errors import UsageError
from baseline.layout import load_layout
from harness import targets
from harness.ahead import beside
from harness.candidate import LAYOUT, Candidate, Status, changed_part, identify, written_layout
from harness.layouts import Layouts, load_layouts, usable_layouts
from harness.loop import seed_candidate
from harness.propose.base import History
from harness.propose.layouts import TRAITS, changed, new_layouts, propose_layout
from harness.propose.mutate import Mutate
from harness.propose.random import Random
from harness.propose.replay import Replay
from harness.propose.writer import Writer
from harness.replayed import Record
from harness.settings import DEFAULT_IO, SearchSettings
from harness.shelf import Shelf
from harness.study import Study
from tests.harness.propose.worlds import World, keep_record, outcome
from tests.kernel_call import KERNELS
from tests.streamed import LAYOUT as WHOLE

COMMITTED = load_layouts(KERNELS / "layouts")
PAGES = next(layout for layout in COMMITTED if layout.name == "pages")


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "kernels").mkdir()
    return Shelf({}, targets.here("cpu"), tmp_path / "kernels", COMMITTED)


@pytest.fixture
def seed(shelf):
    return seed_candidate(shelf, DEFAULT_IO, WHOLE)


def in_layout(candidate, layout):
    configuration = candidate.configuration.with_layout(layout)
    return Candidate(identify(configuration, {}), candidate.id, "hand", "why not", configuration, LAYOUT)


def run(proposer, seed, gain=lambda layout: 1.0, limit=60):
    """What is proposed until nothing is left; faster ones become champion."""
    champion, rows, proposed = seed, [], []
    while (candidate := proposer.propose(History(seed, champion, rows))) is not None:
        assert len(proposed) < limit
        speedup = gain(candidate.configuration.layout) / gain(champion.configuration.layout)
        rows.append(outcome(candidate, Status.KEPT if speedup > 1 else Status.DISCARDED, speedup))
        proposer.observe(candidate, rows[-1])
        proposed.append(candidate)
        champion = candidate if speedup > 1 else champion
    return proposed, rows


def traits(old, new):
    return [trait for trait in TRAITS if getattr(old, trait) != getattr(new, trait)]


def test_a_record_holds_the_layout_whole(seed):
    candidate = in_layout(seed, PAGES)
    record = json.loads(json.dumps(candidate.to_json()))
    assert record["configuration"]["layout"]["tensor_align"] == 4096
    assert Candidate.from_json(record) == candidate
    assert changed_part(candidate) == written_layout(PAGES)


def test_a_record_from_before_layouts_is_read_and_keeps_its_id(seed):
    old = dataclasses.replace(seed.configuration, layout=None)
    record = json.loads(json.dumps(dataclasses.replace(seed, configuration=old).to_json()))
    assert "layout" not in record["configuration"] and Candidate.from_json(record).configuration == old
    assert identify(old, {}) == seed_candidate({}, DEFAULT_IO).id != seed.id


@pytest.mark.parametrize("change", [{"align": 5}, {"order": ["up_proj.weight"]}, {"tensor_align": "page"}])
def test_a_record_with_a_layout_that_cannot_be_is_refused(seed, change):
    record = seed.to_json()
    record["configuration"]["layout"] |= change
    with pytest.raises((UsageError, ValueError), match=next(iter(change))):
        Candidate.from_json(record)


def test_every_part_of_a_layout_counts_in_the_id(seed):
    others = [{"order": WHOLE.order[::-1]}, {"align": 8192}, {"tensor_align": 64}, {"name": "other"}]
    ids = {in_layout(seed, dataclasses.replace(WHOLE, **change)).id for change in others}
    assert len(ids | {seed.id}) == len(others) + 1


def test_a_layout_moves_beside_another_champion(seed):
    candidate = in_layout(seed, PAGES)
    champion = dataclasses.replace(seed, id="champion", configuration=seed.configuration.with_io("threads", 8))
    moved = beside(candidate, champion, {})
    assert moved.configuration == champion.configuration.with_layout(PAGES) and moved.parent == "champion"
    assert moved.id == identify(moved.configuration, {}) != candidate.id


def test_a_written_layout_is_a_file_and_there_after_a_kill(shelf, tmp_path):
    made = [shelf.layouts.add(dataclasses.replace(WHOLE, name="order", align=align)) for align in (8192, 16_384 * 2)]
    assert [layout.name for layout in made] == ["order", "order_2"]
    for layout in made:
        assert load_layout(tmp_path / "kernels" / "layouts" / f"{layout.name}.yaml") == layout
    again = Layouts(tmp_path / "kernels" / "layouts", COMMITTED)
    assert dict(again) == dict(shelf.layouts) and again.written == {"order", "order_2"}


def test_a_layout_under_another_name_is_the_one_that_is_there(shelf):
    assert shelf.layouts.add(dataclasses.replace(PAGES, name="mine", summary="other words")) is PAGES
    assert len(shelf.layouts) == len(COMMITTED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"align": 100}, "align is 100"),
        ({"tensor_align": 3}, "tensor_align is 3"),
        ({"order": WHOLE.order[1:]}, "order must name each"),
        ({"name": "../there"}, "a layout's name must be lower-case words"),
    ],
)
def test_what_is_no_layout_is_not_put_on_the_shelf(shelf, tmp_path, change, said):
    with pytest.raises(UsageError, match=said):
        shelf.layouts.add(dataclasses.replace(WHOLE, **change))
    assert not (tmp_path / "kernels" / "layouts").exists()


def test_a_change_is_of_one_trait_and_says_which_and_why():
    for layout in changed(PAGES):
        assert traits(PAGES, layout) in ([], [layout.name])
        assert layout.summary.startswith("pages, ")
    assert {layout.name for layout in changed(PAGES)} == set(TRAITS)


def test_the_committed_ones_come_first_then_one_trait_at_a_time(shelf, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), shelf, (LAYOUT,), Writer(shelf, (LAYOUT,)))
    proposed, _ = run(proposer, seed)
    assert {candidate.changed for candidate in proposed} == {LAYOUT}
    names = [candidate.configuration.layout.name for candidate in proposed]
    committed = {layout.name for layout in COMMITTED} - {WHOLE.name}
    assert {*names[: len(committed)]} == committed
    rest = [candidate.configuration.layout for candidate in proposed[len(committed) :]]
    assert rest and all(len(traits(WHOLE, layout)) == 1 for layout in rest)
    assert set(shelf.layouts.written) == {layout.name for layout in rest}
    layouts = [WHOLE, *(candidate.configuration.layout for candidate in proposed)]
    assert not any(a.lies_as(b) for i, a in enumerate(layouts) for b in layouts[:i])
    assert not list(new_layouts(shelf, seed, History(seed, seed, _)))


def test_it_climbs_one_trait_at_a_time(shelf, seed, tmp_path):
    def gain(layout):
        ordered = layout.order[0] == "gate_proj.scales"
        return 1 + 0.1 * (layout.tensor_align == 64) + 0.2 * (layout.align == 65_536) + 0.3 * ordered

    proposer = Mutate(Study(tmp_path / "s.db", 0), shelf, (LAYOUT,), Writer(shelf, (LAYOUT,)))
    proposed, rows = run(proposer, seed, gain)
    best = max((candidate.configuration.layout for candidate in proposed), key=gain)
    assert (best.tensor_align, best.align) == (64, 65_536) and best.order[0] == "gate_proj.scales"
    kept = [seed, *(c for c, row in zip(proposed, rows, strict=True) if row.status is Status.KEPT)]
    assert all(child.parent == parent.id for parent, child in pairwise(kept))


def test_the_bandit_learns_from_layouts(shelf, seed):
    writer = Writer(shelf, (LAYOUT,))
    order = dataclasses.replace(WHOLE, name="order_2", order=WHOLE.order[::-1])
    rows = [
        outcome(in_layout(seed, order), Status.KEPT, math.e),
        outcome(in_layout(seed, PAGES), Status.DISCARDED, 1.0),
        outcome(in_layout(seed, dataclasses.replace(WHOLE, name="align")), Status.FAILED_BUILD, math.nan),
    ]
    assert writer.bandit(rows).gains == {
        "layout: order": [pytest.approx(1.0)],
        "tuning": [0.0],
        "layout: align": [math.log(0.5)],
    }


def test_where_layouts_lost_tuning_comes_first_while_there_is_any(shelf, seed):
    """A layout's arm is one among others: a search of kernels is not held up by it."""
    rows = [outcome(in_layout(seed, layout), Status.DISCARDED, 0.5) for layout in COMMITTED]
    rows += [outcome(in_layout(seed, layout), Status.DISCARDED, 0.1) for layout in changed(WHOLE)]
    writer = Writer(shelf, (LAYOUT,))
    untried = dataclasses.replace(seed, configuration=seed.configuration.with_layout(PAGES))
    history = History(seed, untried, rows)
    assert not writer.write(untried, (LAYOUT,), history) and not shelf.layouts.written
    assert writer.write(untried, (LAYOUT,), history, tuning=False) and shelf.layouts.written


def test_random_draws_the_committed_ones(shelf, seed):
    proposed, _ = run(Random(0, shelf, (LAYOUT,)), seed)
    assert {c.configuration.layout.name for c in proposed} == {x.name for x in COMMITTED} - {WHOLE.name}
    assert all(candidate.changed == LAYOUT and candidate.hypothesis for candidate in proposed)


def test_a_layout_that_waits_to_be_timed_is_nobodys_parent(shelf, seed):
    rows = [outcome(in_layout(seed, PAGES), Status.UNMEASURED, math.nan)]
    proposed = Random(0, shelf, (LAYOUT,)).propose(History(seed, seed, rows))
    assert proposed.parent == seed.id and proposed.configuration.layout.name not in ("pages", WHOLE.name)


def test_a_layout_that_somebody_thought_of_is_a_candidate(shelf, seed):
    history = History(seed, seed, ())
    idea = {"order": WHOLE.order[::-1], "align": 8192, "tensor_align": 128, "hypothesis": "backwards is faster"}
    made = propose_layout(shelf, history, "claude", **idea)
    layout = made.configuration.layout
    assert (made.changed, made.parent, made.proposer) == (LAYOUT, seed.id, "claude")
    assert (made.hypothesis, layout.summary) == ("backwards is faster", "backwards is faster")
    assert made.id == identify(made.configuration, shelf) and shelf.layouts[layout.name] == layout
    with pytest.raises(UsageError, match="was tried, or is about to be"):
        propose_layout(shelf, History(seed, seed, (), (made,)), "claude", **idea)
    with pytest.raises(UsageError, match="align is 7"):
        propose_layout(shelf, history, "claude", **{**idea, "align": 7})


def test_a_recorded_layout_is_replayed_once_and_judged_from_the_record(shelf, seed, tmp_path):
    """From its own record: no shelf needs to have it."""
    recorded = in_layout(seed, dataclasses.replace(PAGES, align=65_536))
    told = outcome(recorded, Status.KEPT, 1.5)
    run_folder = keep_record(tmp_path / "run", World(tmp_path, shelf, seed), [(recorded, told)])
    again = Replay(run_folder, shelf, (LAYOUT,)).propose(History(seed, seed, ()))
    assert (again.id, again.configuration) == (recorded.id, recorded.configuration)
    named = dataclasses.replace(recorded.configuration.layout, name="other")
    assert Replay(run_folder, shelf, (LAYOUT,)).propose(History(seed, in_layout(seed, named), ())) is None
    assert Replay(run_folder, shelf, ("io",)).propose(History(seed, seed, ())) is None
    found = Record(run_folder, shelf, 0.02).evaluate(again, seed, seed)
    assert (found.status, found.speedup, found.variant) == (Status.KEPT, 1.5, "pages")


@pytest.mark.parametrize("variants", ["all", "plain"])
def test_plain_leaves_the_committed_layouts_out(variants, tmp_path):
    settings = SearchSettings(tmp_path, tmp_path, KERNELS, tmp_path, tmp_path, variants=variants)
    assert usable_layouts(settings) == (COMMITTED if variants == "all" else [])

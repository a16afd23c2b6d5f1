"""The proposer, on variants that exist only as headers: nothing is compiled."""

import json
import math
from pathlib import Path

import pytest
from optuna.trial import TrialState

from baseline.variant import parse_variant
from harness.ahead import beside
from harness.candidate import Candidate, Configuration, KernelSpec, Status, changed_part, identify
from harness.propose.base import History
from harness.propose.moves import IO_SPACE
from harness.propose.mutate import Mutate
from harness.settings import DEFAULT_IO
from harness.study import Study
from tests.harness.rows import row

HEADER = """/*---
op: {op}
target: cpu
tunables: {tunables}
launch: {{threads: 1}}
hypothesis: {name} is faster
---*/
;
"""
TUNABLES = {"plain": {}, "fast": {"ROWS": [4, 1, 2]}, "odd": {"UNROLL": [1, 2]}}
KERNELS = Path(__file__).parents[2] / "kernels"
OPS = ("expert_down", "qmatvec")


@pytest.fixture
def variants(tmp_path):
    found = {}
    for op in OPS:
        folder = tmp_path / "kernels" / op / "cpu"
        folder.mkdir(parents=True)
        (folder.parent / "contract.yaml").write_text((KERNELS / op / "contract.yaml").read_text())
        for name, tunables in TUNABLES.items():
            path = folder / f"{name}.cpp"
            path.write_text(HEADER.format(op=op, name=name, tunables=json.dumps(tunables)))
            found.setdefault(op, {})[name] = parse_variant(path)
    return found


@pytest.fixture
def seed(variants):
    configuration = Configuration({op: KernelSpec("plain") for op in OPS}, DEFAULT_IO)
    return Candidate(identify(configuration, variants), "", "seed", "", configuration, "")


def outcome(candidate, status=Status.DISCARDED, speedup=1.0):
    variant, tunables = changed_part(candidate)
    return row(
        id=candidate.id,
        op=candidate.changed,
        variant=variant,
        tunables=tunables,
        status=status,
        speedup=speedup,
    )


def run(proposer, seed, judge, limit=500):
    """All that is proposed until nothing is left; `judge` says whether a candidate is kept."""
    champion, rows, proposed = seed, [], []
    while (candidate := proposer.propose(History(seed, champion, rows))) is not None:
        assert len(proposed) < limit
        kept = judge(candidate)
        rows.append(outcome(candidate, Status.KEPT if kept else Status.DISCARDED, 2.0 if kept else 1.0))
        proposer.observe(candidate, rows[-1])
        proposed.append((champion, candidate))
        champion = candidate if kept else champion
    return proposed


def changes(parent, child):
    """What differs between two configurations."""
    kernels = [op for op in parent.kernels if parent.kernels[op] != child.kernels[op]]
    return kernels + [name for name in parent.io if parent.io[name] != child.io[name]]


def test_every_child_changes_one_thing_and_none_comes_twice(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, (*OPS, "io"))
    proposed = run(proposer, seed, lambda candidate: candidate.changed == "qmatvec")
    known = {seed.id}
    for champion, child in proposed:
        assert len(changes(champion.configuration, child.configuration)) == 1
        assert child.parent in known and child.hypothesis
        assert child.id == identify(child.configuration, variants)
        known.add(child.id)
    ids = [seed.id, *(child.id for _, child in proposed)]
    assert len(set(ids)) == len(ids)


def test_a_tunable_move_keeps_the_variant(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, OPS)
    for parent, child in run(proposer, seed, lambda candidate: True):
        old, new = (c.configuration.kernels[child.changed] for c in (parent, child))
        if old.variant == new.variant:
            assert sum(old.tunables[name] != new.tunables[name] for name in old.tunables) == 1
        else:
            assert dict(new.tunables) == {n: v[0] for n, v in TUNABLES[new.variant].items()}


def test_the_other_variants_come_first(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, OPS)
    proposed = run(proposer, seed, lambda candidate: False)
    first = [(child.changed, child.configuration.kernels[child.changed].variant) for _, child in proposed[:4]]
    assert first == [(op, name) for op in OPS for name in ("fast", "odd")]


def test_from_losing_everywhere_all_neighbours_are_tried_and_those_of_near_misses(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, (*OPS, "io"))
    proposed = [child for _, child in run(proposer, seed, lambda candidate: False)]
    own = [child for child in proposed if child.parent == seed.id]
    assert len(own) == 2 * len(OPS) + sum(len(values) - 1 for values in IO_SPACE.values())
    others = [child.configuration.kernels[child.changed].written() for child in proposed if child not in own]
    wanted = [("fast", '{"ROWS": 1}'), ("fast", '{"ROWS": 2}'), ("odd", '{"UNROLL": 2}')]
    assert sorted(others) == sorted(wanted * len(OPS))


def test_a_kernel_that_lost_is_not_tried_beside_another(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, OPS)
    proposed = run(proposer, seed, lambda candidate: True)
    kernels = [(child.changed, *changed_part(child)) for _, child in proposed]
    assert len(set(kernels)) == len(kernels)
    assert not any(variant == "plain" for _, variant, _ in kernels)  # the seed's own kernels are known


def test_what_waited_is_timed_beside_the_champion_of_then(variants, seed, tmp_path):
    first, *_, last = (child for _, child in run(Mutate(Study(tmp_path / "s.db", 0), variants, OPS), seed, lambda _: 0))
    assert beside(first, seed, variants) == first
    champion = Candidate("a champion", seed.id, "", "", last.configuration, last.changed)
    moved = beside(first, champion, variants)
    assert changes(champion.configuration, moved.configuration) == [first.changed] != [last.changed]
    assert (moved.id, moved.parent) == (identify(moved.configuration, variants), champion.id)
    assert changed_part(moved) == changed_part(first)


def test_only_the_parts_that_it_may_change(variants, seed, tmp_path):
    only_io = Mutate(Study(tmp_path / "a.db", 0), variants, ("io",))
    assert {child.changed for _, child in run(only_io, seed, lambda candidate: False)} == {"io"}
    one_op = Mutate(Study(tmp_path / "b.db", 0), variants, ("qmatvec",))
    assert {child.changed for _, child in run(one_op, seed, lambda candidate: True)} == {"qmatvec"}


def test_trials_carry_the_candidates(variants, seed, tmp_path):
    study = Study(tmp_path / "s.db", 0)
    proposed = run(Mutate(study, variants, OPS), seed, lambda candidate: False)
    trials = [t for t in study._study.trials if t.state is TrialState.COMPLETE]
    assert [t.user_attrs["candidate"] for t in trials] == [child.id for _, child in proposed]


def test_the_same_seed_proposes_the_same(variants, seed, tmp_path):
    runs = [
        [child.id for _, child in run(Mutate(Study(tmp_path / name, 3), variants, OPS), seed, lambda c: False)]
        for name in ("a.db", "b.db")
    ]
    assert runs[0] == runs[1]


def test_without_a_measurement_every_variants_tunables_are_proposed(variants, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "s.db", 0), variants, OPS)
    rows, proposed = [], []
    while (candidate := proposer.propose(History(seed, seed, rows))) is not None:
        assert len(proposed) < 50
        assert changes(seed.configuration, candidate.configuration) == [candidate.changed]
        rows.append(outcome(candidate, Status.UNMEASURED, math.nan))
        proposer.observe(candidate, rows[-1])
        proposed.append((candidate.changed, *changed_part(candidate)))
    fast, odd = TUNABLES["fast"]["ROWS"], TUNABLES["odd"]["UNROLL"]
    wanted = [("fast", {"ROWS": n}) for n in fast] + [("odd", {"UNROLL": n}) for n in odd]
    assert sorted(proposed) == sorted((op, name, json.dumps(tunables)) for op in OPS for name, tunables in wanted)


STAGED = """/*---
op: qmatvec
target: cpu
tunables: {STAGED: [1, 0], STAGE_ROWS: [4, 2, 8], THREADS: [1, 2]}
when: {STAGE_ROWS: {STAGED: [1]}}
launch: {threads: THREADS}
hypothesis: staging
---*/
;
"""


@pytest.fixture
def staged(variants, seed):
    """A search whose only kernel has a tunable that has a meaning at a value of another alone: variants and seed."""
    path = variants["qmatvec"]["plain"].path.with_name("staged.cpp")
    path.write_text(STAGED)
    own = variants | {"qmatvec": {"staged": parse_variant(path)}}
    spec = KernelSpec("staged", {"STAGED": 1, "STAGE_ROWS": 4, "THREADS": 1})
    configuration = seed.configuration.with_kernel("qmatvec", spec)
    return own, Candidate(identify(configuration, own), "", "seed", "", configuration, "")


def test_what_differs_in_a_tunable_without_a_meaning_is_one_candidate(staged):
    variants, seed = staged

    def named(**tunables):
        spec = KernelSpec("staged", {"THREADS": 1} | tunables)
        return identify(seed.configuration.with_kernel("qmatvec", spec), variants)

    assert named(STAGED=0, STAGE_ROWS=8) == named(STAGED=0, STAGE_ROWS=4) != named(STAGED=1, STAGE_ROWS=4)
    assert named(STAGED=1, STAGE_ROWS=8) != named(STAGED=1, STAGE_ROWS=4) == seed.id


@pytest.mark.parametrize("kept", [True, False], ids=["each is kept", "none is kept"])
def test_a_tunable_is_turned_where_it_has_a_meaning_and_no_kernel_comes_twice(staged, tmp_path, kept):
    variants, seed = staged
    study = Study(tmp_path / "s.db", 0)
    proposed = [child for _, child in run(Mutate(study, variants, ("qmatvec",)), seed, lambda candidate: kept)]
    tunables = [dict(child.configuration.kernels["qmatvec"].tunables) for child in [seed, *proposed]]
    chosen = [tuple(values.values()) for values in tunables]
    assert sorted(chosen) == sorted([(1, rows, n) for rows in (4, 2, 8) for n in (1, 2)] + [(0, 4, n) for n in (1, 2)])


def test_the_study_is_asked_for_a_tunable_only_where_it_has_a_meaning(staged, tmp_path):
    variants, seed = staged
    study = Study(tmp_path / "s.db", 0)
    run(Mutate(study, variants, ("qmatvec",)), seed, lambda candidate: True)
    suggested = [list(trial.params) for trial in study._study.trials]
    knobs = {names[1] for names in suggested}
    assert knobs == {f"qmatvec/staged: variant, STAGED,{rows} THREADS" for rows in (" STAGE_ROWS,", "")}
    without = [names for names in suggested if "STAGE_ROWS" not in names[1]]
    assert without and not any("STAGE_ROWS" in name for names in without for name in names)

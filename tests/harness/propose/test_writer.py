"""Variants that are written by rewriting the real plain kernels."""

import shutil
from dataclasses import replace

import pytest

from baseline.variant import Choice
from harness import targets
from harness.candidate import KernelSpec, Status
from harness.loop import seed_candidate
from harness.propose import rewrites
from harness.propose.base import History
from harness.propose.mutate import Mutate
from harness.propose.writer import Writer
from harness.settings import DEFAULT_IO
from harness.shelf import Shelf
from harness.study import Study
from tests.harness.propose.worlds import KERNELS, outcome

OPS = ("qmatvec", "expert_down")


@pytest.fixture
def shelf(tmp_path):
    for op in OPS:
        (tmp_path / "kernels" / op / "cpu").mkdir(parents=True)
        for name in ("contract.yaml", "cpu/plain.cpp"):
            shutil.copy(KERNELS / op / name, tmp_path / "kernels" / op / name)
    return Shelf({op: {} for op in OPS}, targets.here("cpu"), tmp_path / "kernels")


@pytest.fixture
def seed(shelf):
    return seed_candidate(shelf, DEFAULT_IO)


def told(shelf, seed, op, name, status, speedup=1.0):
    variant = shelf[op][name]
    spec = KernelSpec(name, Choice.defaults(variant).tunables)
    return outcome(_candidate(seed, op, spec), status, speedup)


def _candidate(seed, op, spec):
    configuration = seed.configuration.with_kernel(op, spec)
    return replace(seed, id=f"{op}{spec.variant}", changed=op, configuration=configuration)


def test_what_goes_farthest_comes_first(shelf, seed):
    writer = Writer(shelf, OPS)
    assert all(writer.write(seed, OPS, History(seed, seed, ())) for _ in OPS)
    for op in OPS:
        text = shelf[op]["whole"].path.read_text()
        assert text == rewrites.settled(shelf[op]["plain"].path.read_text(), (r.name for r in rewrites.ALL))
        assert len(rewrites.traits(text)) > 3


def test_nothing_is_written_twice_and_it_ends(shelf, seed):
    writer = Writer(shelf, ("qmatvec", "io"))
    written = 0
    while writer.write(seed, ("qmatvec", "io"), History(seed, seed, ())):
        written += 1
        assert written < 40
    texts = [variant.path.read_text() for variant in shelf["qmatvec"].values()]
    assert len(set(texts)) == len(texts) == written + 1 > 4 and len(shelf["expert_down"]) == 1


def test_where_rewriting_lost_and_tuning_won_none_is_written(shelf, seed):
    writer = Writer(shelf, ("qmatvec",))
    for _ in range(3):
        writer.write(seed, ("qmatvec",), History(seed, seed, ()))
    rows = [told(shelf, seed, "qmatvec", name, Status.WRONG) for name in shelf["qmatvec"] if name != "plain"]
    tuned = _candidate(seed, "qmatvec", KernelSpec("plain", {"THREADS": 1}))
    assert not writer.write(seed, ("qmatvec",), History(seed, seed, rows + [outcome(tuned, Status.KEPT, 3.0)] * 2))
    assert writer.write(seed, ("qmatvec",), History(seed, seed, rows))


def test_a_search_that_is_resumed_knows_what_was_tried(shelf, seed):
    writer = Writer(shelf, OPS)
    writer.write(seed, OPS, History(seed, seed, ()))
    rows = [told(shelf, seed, "qmatvec", "whole", Status.KEPT, 4.0)]
    found = {"qmatvec: whole": [pytest.approx(1.386, abs=1e-3)]}
    assert writer.bandit(rows).gains == Writer(shelf, OPS).bandit(rows).gains == found


def test_mutate_proposes_what_was_written(shelf, seed, tmp_path):
    proposer = Mutate(Study(tmp_path / "study.db", 0), shelf, ("qmatvec",), Writer(shelf, ("qmatvec",)))
    first = proposer.propose(History(seed, seed, ()))
    assert first.configuration.kernels["qmatvec"].variant == "whole" and first.changed == "qmatvec"
    assert first.hypothesis == shelf["qmatvec"]["whole"].hypothesis

from statistics import median

import pytest

from baseline.contract import load_contract
from baseline.variant import Choice, parse_variant
from harness.build import build
from harness.candidate import Status
from harness.measure import BenchPlan, bench, bench_inputs
from harness.targets import Cpu
from tests.harness.variants import BAD, RIGHT, write_variant

PLAN = BenchPlan(blocks=(10, 10), budget_s=1.0)


@pytest.fixture
def arms(kernels, cache, tmp_path):
    """Benches one body of qmatvec against another."""

    def library(name, body):
        path = write_variant(kernels, name, body)
        return build(Choice.defaults(parse_variant(path)), load_contract(path.parent.parent), Cpu(), cache)[1]

    def run(champion, candidate, timeout_s=20.0):
        old, new = library("champion", champion), library("candidate", candidate)
        bench_inputs(old, tmp_path / "inputs.npz", 1)
        return bench(old, new, tmp_path / "inputs.npz", tmp_path, timeout_s, PLAN)

    return run


def test_four_times_the_work_takes_some_four_times_as_long(arms):
    benched = arms("for (int again = 0; again < 4; ++again) {" + RIGHT + 'asm volatile("" ::: "memory"); }', RIGHT)
    assert benched.ran and len(benched.champion_s) == len(benched.candidate_s) == 20
    assert median(benched.champion_s) > 2 * median(benched.candidate_s) > 0
    assert benched.speedup.low < benched.speedup.value < benched.speedup.high
    assert 2 < benched.speedup.value < 6  # what is near in time shares the machine's other work, not all of it


def test_equal_arms_are_about_equal(arms):
    speedup = arms(RIGHT, RIGHT).speedup
    assert speedup.low < 1.05 and speedup.high > 0.95


@pytest.mark.parametrize(("body", "status"), [("loops", Status.TIMEOUT), ("crashes", Status.CRASHED)])
def test_a_failure_is_data(arms, body, status):
    benched = arms(RIGHT, BAD[body], timeout_s=3.0)
    assert not benched.ran and benched.speedup is None and benched.failure.status is status

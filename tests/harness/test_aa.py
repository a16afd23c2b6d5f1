"""What A/A runs say, of which op, and when they are made again."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from harness import blocks
from harness.aa import APART, DECODE_PLAN, PLAN, Times, Watch
from harness.blocks import fitting, measure
from harness.candidate import (
    DECODE,
    IO,
    Benched,
    Built,
    Candidate,
    Checked,
    Configuration,
    EngineResult,
    KernelSpec,
    Speedup,
    Status,
)
from harness.contest import ContestPlan
from harness.judge import Judge
from harness.keep import LEAST_BLOCKS, MOST_BLOCKS, log_ratios
from harness.load import Counters
from harness.measure import EnginePlan
from harness.noise import detectable
from harness.progress import Silent

MIN_GAIN = 0.001
OP_PLAN = ContestPlan()


def times(spread=0.02, block_s=0.1, level_s=1e-3):
    arms = np.random.default_rng(0).normal(0, spread, (2, 2 * LEAST_BLOCKS))
    return Times(*((level_s * np.exp(arm)).tolist() for arm in arms), block_s)


@dataclass
class Machine:
    """What the champion's kernels, by op, and its decode would measure against themselves."""

    times: dict[str, Times] = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def bench(self, op, plan):
        self.asked.append((op, plan))
        return "plain", self.times.get(op, times())

    def decode(self, plan):
        return self.bench(DECODE, plan)

    def watch(self, *ops):
        watch = Watch(self.bench, self.decode)
        for op in ops:
            watch.run(op)
        self.asked.clear()
        return watch


def test_a_gain_that_hides_in_the_noise_of_one_op_may_be_shown_of_another():
    watch = Machine({"qmatvec": times(0.001), "expert_down": times(0.1), DECODE: times(0.05)}).watch(
        "qmatvec", "expert_down", DECODE
    )
    gains = [watch.least_gain(op) for op in ("qmatvec", DECODE, "expert_down", "gated_delta_step")]
    assert 0 < gains[0] < 0.005 < 0.02 < gains[1] < gains[2] and gains[3] == 0


@pytest.mark.parametrize(
    ("op", "block_s", "most"),
    [
        ("qmatvec", 0.01, MOST_BLOCKS),
        ("qmatvec", 0.15, 27),  # the last of them begins within 4 s
        ("qmatvec", 9.0, LEAST_BLOCKS),
        (DECODE, 0.1, EnginePlan().blocks[1]),
        (DECODE, 0.6, 17),
        (DECODE, 9.0, LEAST_BLOCKS),
    ],
)
def test_what_is_said_to_be_shown_is_so_with_the_blocks_that_a_contest_has_time_for(op, block_s, most):
    (run,) = Machine({op: times(block_s=block_s)}).watch(op).runs
    ratios = log_ratios(times().champion_s, times().candidate_s)
    assert run.blocks == most and run.gain == detectable(ratios, most)
    assert run.line().endswith(f"gains of {100 * run.gain:.1f} % can be shown, in {most} blocks")


@pytest.mark.parametrize("plan", [OP_PLAN, EnginePlan()])
@pytest.mark.parametrize("block_s", [0.01, 0.25, 0.3, 2.0])
def test_as_many_blocks_fit_as_are_measured_of_what_nothing_settles(plan, block_s, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(blocks, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def once(arm):
        clock.now += block_s / 4
        return SimpleNamespace(seconds=1.0)

    made = measure(once, plan.blocks, plan.budget_s, 0.0, lambda: Counters(0.0, 0.0))
    assert len(made) == fitting(plan.blocks, plan.budget_s, block_s)
    assert made.block_s == pytest.approx(block_s)


def test_an_op_is_measured_by_a_contest_and_the_decode_by_the_engine():
    machine = Machine()
    watch = Watch(machine.bench, machine.decode)
    watch.run("qmatvec"), watch.run(DECODE)
    assert machine.asked == [("qmatvec", PLAN), (DECODE, DECODE_PLAN)]


def test_the_number_of_blocks_of_an_aa_run_is_fixed():
    """One that ended as soon as the noise looked small would flatter the machine."""
    assert PLAN.blocks[0] == PLAN.blocks[1] and DECODE_PLAN.blocks[0] == DECODE_PLAN.blocks[1]


def test_an_op_whose_times_drift_is_measured_again_and_no_other():
    machine = Machine()
    watch = machine.watch("qmatvec", "expert_down", DECODE)
    for op in ("qmatvec", "expert_down", DECODE):
        for _ in range(APART):
            assert watch.see(op, "plain", times()) is None
    assert watch.see("qmatvec", "plain", times(level_s=2e-3)).op == "qmatvec"
    assert machine.asked == [("qmatvec", PLAN)]
    assert watch.see(DECODE, "plain", times()) is None and watch.see(DECODE, "plain", times(level_s=2e-3)).op == DECODE


def test_a_drift_that_came_before_another_aa_run_was_due_is_noticed_when_it_is():
    machine = Machine()
    watch = machine.watch("qmatvec")
    found = [watch.see("qmatvec", "plain", times(level_s=2e-3)) is not None for _ in range(APART)]
    assert found == [False] * (APART - 1) + [True]


def test_of_another_champion_the_noise_drifts_and_not_the_time():
    machine = Machine()
    watch = machine.watch("qmatvec")
    assert not any(watch.see("qmatvec", "fast", times(level_s=1e-5)) for _ in range(APART))
    assert watch.see("qmatvec", "fast", times(0.2, level_s=1e-5)).op == "qmatvec"


def test_contests_of_other_ops_bring_no_aa_run_nearer():
    machine = Machine()
    watch = machine.watch("qmatvec", "expert_down")
    for _ in range(APART):
        watch.see("expert_down", "plain", times())
    watch.see("qmatvec", "plain", times())
    assert watch.see("qmatvec", "plain", times(level_s=2e-3)) is None


def test_a_champion_that_leaves_room_for_twice_the_blocks_is_measured_against_itself():
    machine = Machine({"qmatvec": times(block_s=0.4)})
    watch = machine.watch("qmatvec")
    assert watch.see("qmatvec", "fast", times(block_s=0.3)) is None
    assert watch.see("qmatvec", "plain", times(block_s=0.1)) is None  # beside a fast candidate: it is the same champion
    assert watch.see("qmatvec", "fast", times(block_s=0.1)).blocks == fitting(OP_PLAN.blocks, OP_PLAN.budget_s, 0.4)
    assert machine.asked == [("qmatvec", PLAN)]


def test_a_contest_that_was_not_timed_says_nothing():
    watch = Machine().watch("qmatvec")
    assert watch.see("qmatvec", "plain", Times((), (), 0.0)) is None


# ---- the judge -------------------------------------------------------------------------------------

OPS = ("qmatvec", "expert_down")
CHAMPION = Candidate("c" * 12, "", "seed", "", Configuration({op: KernelSpec("plain") for op in OPS}), "")
GAIN = Speedup(1.05, 1.03, 1.07)


class Judged(Judge):
    """A judge on whose machine every candidate is right, and faster by GAIN; it remembers the A/A runs."""

    def __init__(self, machine):
        self.settings = SimpleNamespace(min_gain=MIN_GAIN, state="warm")
        self.target, self.golden = SimpleNamespace(measures=True), SimpleNamespace(quick=lambda: None)
        self.observer, self.noises = Silent(), []
        self.observer.on_noise = lambda run: self.noises.append(run.op)
        self.watch = Watch(machine.bench, machine.decode)

    def build(self, op, spec):
        return Built(0.0), [None]

    def _check(self, op, libraries, folder):
        return Checked(True, True, {}, 0.0)

    def bench(self, op, champion, candidate, folder, plan):
        return Benched(True, (1e-3,) * 20, (1e-3,) * 20, GAIN, 0.0, block_s=0.1)

    def engine(self, candidate, champion, folder, golden, plan):
        return EngineResult(True, True, (99.0,) * 20, (99.0,) * 20, GAIN, 0.0, block_s=0.1)

    def status(self, changed):
        candidate = Candidate("d" * 12, CHAMPION.id, "hand", "", CHAMPION.configuration, changed)
        return self.evaluate(candidate, CHAMPION, None).status


def test_a_search_opens_with_an_aa_run_of_each_op_that_it_searches():
    judge = Judged(Machine())
    judge.open(CHAMPION, OPS)
    assert judge.noises == [*OPS]


def test_the_decode_meets_itself_once_before_the_first_io_policy():
    judge = Judged(Machine())
    judge.open(CHAMPION, OPS)
    judge.status("qmatvec")
    assert judge.noises == [*OPS]
    judge.status(IO), judge.status(IO)
    assert judge.noises == [*OPS, DECODE]


@pytest.mark.parametrize("noisy", ["qmatvec", "expert_down", DECODE])
def test_only_where_the_noise_is_a_gain_is_not_kept(noisy):
    judge = Judged(Machine({noisy: times(0.3)}))
    judge.open(CHAMPION, OPS)
    expected = {part: Status.DISCARDED if part == noisy else Status.KEPT for part in (*OPS, DECODE)}
    assert {part: judge.status(IO if part == DECODE else part) for part in (*OPS, DECODE)} == expected

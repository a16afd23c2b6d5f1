"""Two kernels against each other: what is measured, and what a contestant cannot get away with."""

import dataclasses
import math
import time
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest

from baseline.contract import load_contract
from baseline.variant import Choice, parse_variant
from harness import conversation, tolerance
from harness.build import build
from harness.candidate import Benched, Status
from harness.contest import Contest, ContestPlan, bench_inputs
from harness.conversation import Ended
from harness.copies import load_copies
from harness.costs import Meter, Part
from harness.opening import measure_floor
from harness.physics import Floor
from harness.slots import LINE
from harness.targets import Cpu
from harness.verify import measure_noise
from tests.harness.variants import BAD, RIGHT, write_variant

PLAN = ContestPlan(blocks=(10, 10), budget_s=20.0)
NO_FLOOR = Floor(0.0, 0.0, 0)
TWICE = "for (int again = 0; again < 4; ++again) {" + RIGHT + 'asm volatile("" ::: "memory"); }'
# Code at namespace scope: what a kernel can keep between its calls.
COUNTED = "// helpers\n#include <atomic>\nstatic std::atomic<long> calls{0};\n// body\n"


@pytest.fixture
def library(kernels, cache):
    """A body of qmatvec, built."""

    def make(name, body):
        path = write_variant(kernels, name, body)
        built, made = build(Choice.defaults(parse_variant(path)), load_contract(path.parent.parent), Cpu(), cache)
        assert made is not None, built
        return made

    return make


@pytest.fixture
def contest(library, tmp_path):
    """Lets one body of qmatvec meet another."""

    def run(champion, candidate, timeout_s=20.0, floor=NO_FLOOR, part=Contest.run):
        old, new = library("champion", champion), library("candidate", candidate)
        noise = measure_noise(library("right", RIGHT), 1, tmp_path, 20.0)
        bench_inputs(old, tmp_path / "inputs.npy")
        folders = tmp_path / "candidate", tmp_path / "champion"
        for folder in folders:
            folder.mkdir(exist_ok=True)
        where = tmp_path / "inputs.npy", *folders, timeout_s
        return part(Contest(old, new, *where, floor, noise.errors, 0.1, plan=PLAN))

    return run


def test_no_copy_of_the_weights_holds_what_another_holds(library, tmp_path):
    bench_inputs(library("plain_one", RIGHT), tmp_path / "inputs.npy")
    for name, copies in load_copies(tmp_path / "inputs.npy").items():
        lines = np.ascontiguousarray(copies).reshape(-1).view(f"V{LINE}")
        assert len(copies) > 1 and len(set(lines.tolist())) == len(lines), name


def test_four_times_the_work_takes_some_four_times_as_long(contest):
    benched = contest(TWICE, RIGHT)
    assert benched.ran and benched.failure is None and len(benched.champion_s) == len(benched.candidate_s) == 20
    assert median(benched.champion_s) > 2 * median(benched.candidate_s) > 0
    assert benched.speedup.low < benched.speedup.value < benched.speedup.high
    assert benched.speedup.value > 2  # what is near in time shares the machine's other work, not all of it


def test_equal_arms_are_about_equal(contest):
    speedup = contest(RIGHT, RIGHT).speedup
    assert speedup.low < 1.05 and speedup.high > 0.95


@pytest.mark.parametrize(("body", "status"), [("loops", Status.TIMEOUT), ("crashes", Status.CRASHED)])
def test_a_failure_is_data(contest, body, status):
    benched = contest(RIGHT, BAD[body], timeout_s=3.0)
    assert not benched.ran and benched.speedup is None and benched.failure.status is status


def test_a_champion_that_crashes_by_itself_is_no_verdict_on_the_candidate(contest):
    with pytest.raises(Ended, match="champion: crashed with SIGSEGV") as ended:
        contest(BAD["crashes"], RIGHT, part=lambda c: c._apart(1.5))
    assert ended.value.who == ("champion",)


def test_who_wins_only_beside_a_champion_that_he_slows_down_is_found_out(contest):
    # As a candidate would be that spoils the champion's code: faster in one process, equal in two.
    failure = contest(RIGHT, RIGHT, part=lambda c: c._apart(1.5))
    assert failure.status is Status.DISCARDED and "no gain in a process of its own" in failure.reason


def test_a_kernel_that_stops_working_after_some_calls(contest):
    lazy = COUNTED + "if (++calls > 40) return;\n" + RIGHT
    benched = contest(RIGHT, lazy)
    assert (
        benched.failure.status is Status.WRONG and "left 512 of 512 elements of y unwritten" in benched.failure.reason
    )


def test_a_kernel_that_gives_an_earlier_answer_for_the_same_place(contest):
    # Computes an output once, and for the same address leaves what it was before.
    keeps = RIGHT.replace(
        "y[i] = from_float<T>(total);", "y[i] = from_float<T>(total); if (!own->empty()) (*own)[i] = total;"
    )
    lazy = (
        "// helpers\n#include <map>\n#include <mutex>\n#include <vector>\n"
        "static std::mutex gate;\nstatic std::map<std::pair<const void*, int>, int> seen;\n"
        "static std::map<int, std::vector<float>> kept;\n"
        "// body\nstd::vector<float>* own;\nbool again;\n{\n    std::lock_guard hold(gate);\n"
        "    auto found = seen.emplace(std::pair<const void*, int>(x, thread), int(seen.size()));\n"
        "    own = &kept[found.first->second], again = !found.second && !own->empty();\n"
        "    if (m * N == 512) own->resize(512);\n}\n"
        "if (again) {\n    const Range mine = share(N, thread, n_threads);\n"
        "    for (long i = mine.begin; i < mine.end; ++i) y[i] = from_float<T>((*own)[i]);\n    return;\n}\n"
    ) + keeps
    benched = contest(RIGHT, lazy)
    assert benched.failure.status is Status.WRONG and "in the timed loop: y[0" in benched.failure.reason


def test_a_kernel_that_spoils_its_input_in_the_timed_loop(contest):
    spoils = COUNTED + RIGHT + "if (++calls > 40 && thread == 0) const_cast<T*>(x)[0] = from_float<T>(7);"
    benched = contest(RIGHT, spoils)
    assert benched.failure.status is Status.WRONG and "modified its input x" in benched.failure.reason


# Of a hundred launches one gives zeros: the oracle hardly ever sees it, the champion always.
SKIPS = COUNTED + "if (thread == 0 && ++calls % 100 == 0) {\n"
SKIPS += "    for (long i = 0; i < m * N / n_threads; ++i) y[i] = from_float<T>(0);\n    return;\n}\n" + RIGHT


@pytest.mark.parametrize("part", [Contest.run, lambda c: c._apart(1.5)], ids=["in one process", "in two"])
def test_one_launch_in_a_hundred_that_is_left_out(contest, part):
    found = contest(TWICE, SKIPS, part=part)
    failure = found.failure if isinstance(found, Benched) else found
    assert failure.status is Status.WRONG and " is 0, " in failure.reason


def test_faster_than_the_memory_is_impossible(contest):
    benched = contest(RIGHT, RIGHT, floor=Floor(0.0, 10.0, 10**6))
    assert benched.failure.status is Status.IMPOSSIBLE
    assert "faster than physics" in benched.failure.reason and "1.0 MB" in benched.failure.reason


def test_the_lower_of_two_floors_counts():
    assert Floor(2e-6, 1e-3, 5).lowered(Floor(1e-6, 3e-3, 5)) == Floor(1e-6, 1e-3, 5)


def test_the_floor_of_an_op(library, tmp_path):
    plain = library("plain_one", RIGHT)
    bench_inputs(plain, tmp_path / "inputs.npy")
    floor = measure_floor(plain, 30.0, tmp_path / "inputs.npy", tmp_path, tmp_path / "cache")
    assert 0 < floor.noop_s < 0.01 and floor.bytes_s == pytest.approx(floor.nbytes / 45e9)
    assert floor.failure(1.0) is None and floor.failure(floor.noop_s / 100) is not None
    unknown = measure_floor(plain, None, tmp_path / "inputs.npy", tmp_path, tmp_path / "cache")
    assert unknown.bytes_s == 0 and not math.isnan(unknown.noop_s)
    assert dataclasses.replace(floor, noop_s=0.0).failure(floor.bytes_s * 0.9) is not None


def test_a_process_that_tells_another_time(contest, monkeypatch):
    from harness import contestant

    real = contestant.Contestant.run

    def run(self, arm):
        found = real(self, arm)
        tells = 0.1 if arm == "candidate" else 1.0
        return dataclasses.replace(found, own_seconds=found.own_seconds * tells)

    monkeypatch.setattr(contestant.Contestant, "run", run)
    benched = contest(RIGHT, RIGHT)
    assert benched.failure.status is Status.DISHONEST and "clock" in benched.failure.reason


@pytest.mark.parametrize(
    ("module", "name", "part"),
    [(tolerance, "formula", Part.COMPARING), (conversation, "start_child", Part.STARTING)],
    ids=["the oracle", "processes that start"],
)
def test_what_is_slow_beside_the_clock_is_no_timed_run(contest, monkeypatch, module, name, part):
    """A thousand seconds pass whenever the function is called, on the clock of the repetitions too."""
    late, real = [0.0], getattr(module, name)

    def clock():
        return time.perf_counter() + sum(late)

    def slow(*arguments, **named):
        late.append(1000.0)
        return real(*arguments, **named)

    def metered(contest):
        monkeypatch.setattr(module, name, slow)
        monkeypatch.setattr(conversation, "time", SimpleNamespace(perf_counter=clock, sleep=time.sleep))
        meter = Meter(clock)
        with meter.counting():
            assert contest.run().failure is None
        return meter.seconds()

    seconds = contest(TWICE, RIGHT, part=metered)
    assert len(late) > 1 and seconds[part] > sum(late)
    assert 0 < seconds[Part.TIMED] < 1000 and sum(seconds.values()) - sum(late) < 1000

"""What disturbs a measurement: the arithmetic on recorded counters, and a real load that is noticed."""

import itertools
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.targets import compiler
from harness import load
from harness.blocks import CANDIDATE, measure
from harness.load import CORES, LEAST_S, SLOWER, Counters, Disturbance, Sensors, Watch, disturbance

QUIET = Counters(seconds=100.0, others_s=20.0, throttled=3, clock=4e6)
BLOCKS = 20


def after(seconds, others_s=0.0, throttled=0, clock=QUIET.clock):
    """The counters so many seconds later."""
    return Counters(
        QUIET.seconds + seconds, QUIET.others_s + others_s, QUIET.throttled + throttled, clock if clock else 0.0
    )


# ---- the decision ----------------------------------------------------------------------------------


@given(st.floats(0.01, 100), st.floats(0, 1))
def test_other_load_is_a_share_of_a_core_and_never_a_matter_of_ticks(seconds, cores):
    found = disturbance(QUIET, after(seconds, cores * seconds))
    if cores * seconds < LEAST_S - 1e-9 or cores < CORES - 1e-9:
        assert found is None
    elif cores * seconds > LEAST_S + 1e-9 and cores > CORES + 1e-9:
        assert found is Disturbance.LOAD


@given(st.floats(0.04, 10), st.integers(-4, 4))
def test_some_ticks_more_or_less_disturb_nothing(seconds, ticks):
    assert disturbance(QUIET, after(seconds, ticks * 0.01)) is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"throttled": 1}, Disturbance.THROTTLED),
        ({"throttled": 1, "others_s": 5.0}, Disturbance.THROTTLED),
        ({"clock": 0.9 * SLOWER * QUIET.clock}, Disturbance.SLOWER),
        ({"clock": 1.1 * SLOWER * QUIET.clock}, None),
        ({"clock": 2 * QUIET.clock}, None),
    ],
)
def test_throttling_and_a_slower_clock(changes, found):
    assert disturbance(QUIET, after(1.0, **changes), fastest=QUIET.clock) is found


def test_a_machine_that_tells_no_clock_has_not_slowed_down():
    unknown = replace(QUIET, clock=0.0)
    watch = Watch(itertools.repeat(unknown).__next__)
    assert [watch.look() for _ in range(3)] == [None] * 3


def test_a_clock_is_compared_with_the_fastest_of_its_watch():
    clocks = iter([1.0, 4.0, 4.1, 3.0, 4.0])
    watch = Watch(lambda: replace(QUIET, clock=next(clocks)))
    assert [watch.look() for _ in range(4)] == [None, None, Disturbance.SLOWER, None]


# ---- blocks ----------------------------------------------------------------------------------------


@dataclass
class Taken:
    seconds: float


def machine(disturbed):
    """Readings of a machine on which block number n (0 is the first) has other load where `disturbed` says so."""
    total = QUIET.others_s
    yield QUIET
    for number in itertools.count():
        total += 1.0 if disturbed(number) else 0.0
        yield Counters(QUIET.seconds + number + 1, total)


def measured(once, disturbed, blocks=(BLOCKS, BLOCKS)):
    return measure(once, blocks, 100.0, 0.0, machine(disturbed).__next__)


def test_a_disturbed_block_is_left_out_with_both_its_arms_and_measured_again():
    calls = itertools.count()
    made = measured(lambda arm: Taken(1.0 + next(calls)), lambda number: number in (0, 7))
    assert made.again == {Disturbance.LOAD: 2} and made.disturbed == {}
    assert len(made.champion) == len(made.candidate) == 2 * len(made) == 2 * BLOCKS
    seen = {int(found.seconds) - 1 for found in (*made.champion, *made.candidate)}
    assert seen == {*range(4 * (BLOCKS + 2))} - {*range(4)} - {*range(28, 32)}


def test_on_a_machine_that_is_never_quiet_blocks_count_in_the_end_and_that_is_noted():
    made = measured(lambda arm: Taken(1.0), lambda number: True)
    assert len(made) == BLOCKS
    assert made.again == {Disturbance.LOAD: BLOCKS} and made.disturbed == {Disturbance.LOAD: BLOCKS}


@pytest.mark.parametrize("times", [2.0, 20.0])
def test_a_candidate_that_is_slow_in_one_of_ten_repetitions_keeps_its_slow_blocks(times):
    rng = np.random.default_rng(0)
    slow = iter(rng.random(4 * BLOCKS) < 0.1)
    drawn = []

    def once(arm):
        if arm != CANDIDATE:
            return Taken(1.0)
        drawn.append(0.95 * (times if next(slow) else 1.0))
        return Taken(drawn[-1])

    made = measured(once, lambda number: False)
    assert [found.seconds for found in made.candidate] == drawn and max(drawn) == 0.95 * times
    assert made.again == {} and made.disturbed == {}


@given(st.lists(st.floats(0.1, 10.0), min_size=4 * BLOCKS, max_size=4 * BLOCKS), st.sets(st.integers(0, BLOCKS - 1)))
def test_which_blocks_count_does_not_depend_on_how_long_they_took(seconds, disturbed):
    calls = iter([*seconds, *itertools.repeat(1.0, 4 * BLOCKS)])
    made = measured(lambda arm: Taken(next(calls)), lambda number: number in disturbed)
    assert sum(made.again.values()) == len(disturbed) and len(made) == BLOCKS


# ---- the machine -----------------------------------------------------------------------------------


def test_what_linux_tells_of_each_core(tmp_path):
    for core, (count, clock) in enumerate([(2, 800_000), (5, 3_400_000)]):
        for name, value in (("thermal_throttle/core_throttle_count", count), ("cpufreq/scaling_cur_freq", clock)):
            file = tmp_path / f"cpu{core}" / name
            file.parent.mkdir(parents=True)
            file.write_text(f"{value}\n")
    sensors = Sensors.below(tmp_path)
    assert (sensors.throttled(), sensors.clock()) == (7, 3_400_000)
    (tmp_path / "cpu1" / "thermal_throttle" / "core_throttle_count").write_text("6\n")
    assert sensors.throttled() == 8
    for file in (*sensors.throttle_counts, *sensors.frequencies):
        file.unlink()  # all cores are switched off
    assert (sensors.throttled(), sensors.clock()) == (0, 0)
    assert Sensors.below(tmp_path / "none") == Sensors()


@pytest.mark.parametrize(
    ("told", "percent"), [("CPU_Scheduler_Limit = 100\n\tCPU_Speed_Limit \t= 62\n", 62.0), ("Note: no warning\n", 0.0)]
)
def test_what_macos_tells(tmp_path, told, percent):
    pmset = tmp_path / "pmset"
    pmset.write_text(f"#!/bin/sh\ncat <<'END'\n{told}END\n")
    pmset.chmod(0o755)
    assert Sensors(pmset=str(pmset)).clock() == percent


def test_all_that_is_not_watched_is_said(monkeypatch):
    monkeypatch.setattr(Sensors, "here", lambda: Sensors())
    assert [line.split(":")[0] for line in load.watched().missing][-2:] == ["thermal throttling", "clock"]
    assert "other programs" in load.watched().told


BUSY = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
NOT_OURS = f"""import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {BUSY!r}], stdout=subprocess.DEVNULL).pid)"""


def test_a_busy_program_of_somebody_else_is_noticed():
    """One whose parent has ended is below us no more."""
    pid = int(subprocess.run([sys.executable, "-c", NOT_OURS], stdout=subprocess.PIPE, check=True).stdout.split()[0])
    try:
        assert wait_for_load()
    finally:
        psutil.Process(pid).kill()


def wait_for_load():
    """Looks, for at most a minute, until other load is seen: a busy machine may give a program little at once."""
    watch, end = Watch(load.counters), time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.5)
        if watch.look() is Disturbance.LOAD:
            return True
    return False


@dataclass
class FakeTimes:
    user: float
    nice: float
    steal: float = 0.0


WORKS = "sum(i * i for i in range(3_000_000))"


@pytest.mark.parametrize("ends", [False, True])
def test_a_compiler_that_we_started_is_ours(ends, monkeypatch, tmp_path):
    """While it runs, and once it has ended: its time is in neither case another program's."""
    monkeypatch.setattr(psutil, "cpu_times", lambda: FakeTimes(0.0, 0.0))
    before = load.others_s()
    script = tmp_path / "compiler"
    script.write_text(f"#!{sys.executable}\n{WORKS}\nprint('done', flush=True)\n" + ("" if ends else "input()\n"))
    script.chmod(0o755)
    if ends:
        compiler._run([str(script)], tmp_path)
        used = before - load.others_s()
    else:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(["nice", "-n", "19", str(script)], **pipes) as started:
            started.stdout.readline()
            used = before - load.others_s()
            started.communicate(b"\n")
    assert used >= 0.05


def test_stolen_and_niced_time_of_others_count_and_time_in_the_kernel_does_not(monkeypatch):
    monkeypatch.setattr(load, "_own_s", lambda: 1.5)
    monkeypatch.setattr(psutil, "cpu_times", lambda: FakeTimes(user=4.0, nice=2.0, steal=0.5))
    assert load.others_s() == 5.0

"""Where a search's time went, by a clock that moves when it is told to."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.costs import Costs, Meter, Part, spent_on, spent_timed

STEPS = st.deferred(
    lambda: st.lists(st.integers(0, 9) | st.tuples(st.sampled_from(Part), STEPS), max_size=4)  # seconds, or a part
)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def spend(clock, steps):
    for step in steps:
        if isinstance(step, int):
            clock.now += step
        else:
            with spent_on(step[0]):
                spend(clock, step[1])


@given(STEPS)
def test_all_parts_together_are_all_of_the_time(steps):
    clock = Clock()
    meter = Meter(clock)
    with meter.counting():
        spend(clock, steps)
    assert sum(meter.seconds().values()) == clock.now


def test_time_goes_to_the_innermost_part_alone(clock):
    meter = Meter(clock)
    with meter.counting():
        spend(clock, [1, (Part.COMPARING, [2, (Part.RUNNING, [4]), 8])])
    assert {name: spent for name, spent in meter.seconds().items() if spent} == {
        "proposing and recording": 1,
        "comparing": 10,
        "running checks": 4,
    }


def test_of_what_passed_only_what_was_on_the_clock_is_a_timed_run(clock):
    meter = Meter(clock)
    with meter.counting(), spent_on(Part.RUNNING):
        clock.now += 5
        spent_timed(2)
    assert meter.seconds()[Part.TIMED] == 2 and meter.seconds()[Part.RUNNING] == 3


def test_a_part_that_fails_ends_all_the_same(clock):
    meter = Meter(clock)
    with meter.counting():
        with pytest.raises(KeyboardInterrupt), spent_on(Part.BUILDS):
            clock.now += 1
            raise KeyboardInterrupt
        clock.now += 2
    assert meter.seconds()[Part.BUILDS] == 1 and meter.seconds()[Part.REST] == 2


def test_a_search_beside_another_and_what_a_thread_builds_meanwhile_do_not_count(clock):
    mine, other = Meter(clock), Meter(clock)

    def elsewhere():
        spend(clock, [(Part.BUILDS, [3])])
        with other.counting():
            spend(clock, [(Part.COMPARING, [4])])

    with mine.counting(), spent_on(Part.INPUTS):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert mine.seconds()[Part.INPUTS] == 7 and mine.seconds()[Part.BUILDS] == mine.seconds()[Part.COMPARING] == 0
    assert other.seconds()[Part.COMPARING] == 4


def test_what_is_neither_a_build_nor_a_timed_run_is_the_harness():
    costs = Costs(dict(zip(Part, [10.0, 20.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0], strict=True)), {"search": 36.0}, 3)
    assert costs.harness == pytest.approx(0.4) and costs.per_hour == 300
    assert "builds 10.0, timed runs 20.0, starting processes 1.0" in "\n".join(costs.lines())
    assert "the harness, all but builds, timed runs and waiting: 40.0 %" in "\n".join(costs.lines())
    assert Costs().harness == 0 and Costs().per_hour == 0  # a search that was ended before it began

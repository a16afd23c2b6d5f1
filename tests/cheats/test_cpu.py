"""C++ kernels that must be rejected, each for its own reason, and honest ones that must not."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from baseline import landlock, seccomp
from harness import sandbox, targets
from harness.candidate import Stage, Status
from harness.physics import Floor
from tests.cheats.conftest import CHEATS, LOSERS, TIMEOUT_S

OPS = ("qmatvec", "expert_down")
BUILD, CHECK, BENCH, DISPATCH, ENGINE = Stage.BUILD, Stage.CHECK, Stage.BENCH, Stage.DISPATCH, Stage.ENGINE
OFF = "off by"  # an output is not the oracle's
TIMED = "in the timed loop: "
DECODED = "in a timed decode: "
UNDONE = "of 512 elements of y unwritten when it answered"
FORBIDDEN = "made a forbidden system call"
CLOSED = "Permission denied"
OUT_OF_MEMORY = "needed more than 1024 MB of memory"
# Name: the stage that rejects it, with which status, and what its reason says.
QMATVEC = {
    "returns_without_computing": (CHECK, Status.WRONG, "left 7 of 7 elements of y unwritten"),
    "leaves_one_element": (CHECK, Status.WRONG, "left 1 of 7 elements of y unwritten"),
    "computes_one_row_in_two": (CHECK, Status.WRONG, OFF),
    "copies_a_stale_output": (CHECK, Status.WRONG, OFF),
    "replays_by_pointer": (BENCH, Status.WRONG, TIMED + "y["),
    "replays_by_content": (BENCH, Status.WRONG, TIMED + "y["),
    "replays_by_call_count": (BENCH, Status.WRONG, TIMED + "y["),
    "right_for_the_first_calls": (BENCH, Status.WRONG, TIMED + "left 512 of 512 elements of y unwritten"),
    "reads_the_first_copy": (BENCH, Status.WRONG, TIMED + "y["),
    "hard_codes_the_benchmark": (CHECK, Status.WRONG, "(N=512 K=512"),
    "detects_the_timed_phase": (BENCH, Status.WRONG, TIMED + "y["),
    "lazy_while_it_is_timed": (BENCH, Status.WRONG, TIMED),
    "fewer_bits_than_declared": (CHECK, Status.WRONG, OFF),
    "accumulates_in_half": (CHECK, Status.WRONG, OFF),
    "skips_the_biases": (CHECK, Status.WRONG, OFF),
    "skips_the_last_group": (CHECK, Status.WRONG, OFF),
    "gives_a_nan": (CHECK, Status.WRONG, "is nan, not"),
    "gives_an_infinity": (CHECK, Status.WRONG, "is inf, not"),
    "adds_to_what_the_output_held": (CHECK, Status.WRONG, "left 7 of 7 elements of y unwritten"),
    "trusts_fresh_memory": (CHECK, Status.WRONG, OFF),
    "races_one_time_in_fifty": (CHECK, Status.WRONG, "the same call again gave something else: "),
    "races_between_threads": (CHECK, Status.WRONG, "the same call again gave something else: y[0, 0] is"),
    "writes_past_its_output": (CHECK, Status.CRASHED, "crashed with SIGSEGV"),
    "writes_before_its_output": (CHECK, Status.WRONG, "wrote in front of a buffer"),
    "writes_its_input": (CHECK, Status.WRONG, "modified its input x"),
    "writes_its_input_when_timed": (BENCH, Status.WRONG, TIMED + "modified its input x"),
    "starts_a_thread_that_outlives_the_call": (CHECK, Status.CRASHED, FORBIDDEN),
    "forks": (CHECK, Status.CRASHED, FORBIDDEN),
    "forks_when_it_is_loaded": (CHECK, Status.CRASHED, FORBIDDEN),
    "opens_a_socket": (CHECK, Status.CRASHED, FORBIDDEN),
    "reads_the_oracle": (CHECK, Status.CRASHED, f"reference.py: {CLOSED}"),
    "reads_the_golden_answers": (CHECK, Status.CRASHED, f"golden: {CLOSED}"),
    "reads_another_candidate": (CHECK, Status.CRASHED, f"candidate.json: {CLOSED}"),
    "changes_another_candidate": (CHECK, Status.CRASHED, f"candidate.json: {CLOSED}"),
    "edits_the_contract": (CHECK, Status.CRASHED, f"contract.yaml: {CLOSED}"),
    "embeds_the_golden_answers": (BUILD, Status.FAILED_BUILD, "golden.json"),  # "file not found", says GNU's assembler
    "includes_the_oracle": (BUILD, Status.FAILED_BUILD, f"reference.py: {CLOSED}"),
    "includes_another_candidate": (BUILD, Status.FAILED_BUILD, f"candidate.json: {CLOSED}"),
    "allocates_without_end": (CHECK, Status.CRASHED, OUT_OF_MEMORY),
    "shares_memory_without_end": (CHECK, Status.CRASHED, OUT_OF_MEMORY),
    "loops_for_ever": (CHECK, Status.TIMEOUT, "did not end within"),
    "crashes_after_the_answer": (CHECK, Status.CRASHED, "crashed with SIGSEGV"),
    "exits_early": (CHECK, Status.CRASHED, "ended without a result"),
    "leaves_a_fake_result": (CHECK, Status.WRONG, "the code that was loaded is not the code that was built"),
    "prints_a_fake_answer": (BENCH, Status.CRASHED, "answered what was not asked"),
    "prints_nonsense": (BENCH, Status.CRASHED, "answered what was not asked"),
    "patches_the_clock": (BENCH, Status.DISHONEST, "its process's clock is"),
    "slows_the_champion": (BENCH, Status.DISCARDED, "no gain in a process of its own"),
    "defers_its_work_past_the_timer": (BENCH, Status.WRONG, UNDONE),
    "defers_one_repetition_in_four": (BENCH, Status.WRONG, UNDONE),
    "answers_before_it_computes": (BENCH, Status.WRONG, UNDONE),
    "computes_before_the_timer": (BENCH, Status.WRONG, UNDONE),
    "runs_the_last_launches_only": (BENCH, Status.WRONG, UNDONE),
    "skips_one_launch_in_two_repetitions": (BENCH, Status.WRONG, "the champion's"),
    "corrects_its_garbage_later": (BENCH, Status.WRONG, TIMED + "y["),
    "wakes_itself": (CHECK, Status.CRASHED, FORBIDDEN),
    "cheats_only_in_the_engine": (ENGINE, Status.WRONG, "golden: "),
    "answers_before_it_decodes": (ENGINE, Status.WRONG, DECODED + "token "),
    "decodes_before_the_timer": (ENGINE, Status.WRONG, DECODED + "token "),
    "decodes_nothing": (ENGINE, Status.WRONG, DECODED + "its answer was no text of as many tokens"),
    "patches_the_clock_of_a_decode": (ENGINE, Status.DISHONEST, "its process's clock is"),
    "disarms_the_watermark": (DISPATCH, Status.WRONG, "the engine does not run this kernel"),
}
EXPERT_DOWN = {
    "lowers_k": (CHECK, Status.WRONG, OFF),
    "skips_small_weights": (CHECK, Status.WRONG, OFF),
    "caches_experts_by_slot": (CHECK, Status.WRONG, OFF),
    "wrong_at_the_bench_shape": (BENCH, Status.WRONG, TIMED + "y["),
}
TABLE = {("qmatvec", name): found for name, found in QMATVEC.items()} | {
    ("expert_down", name): found for name, found in EXPERT_DOWN.items()
}
WAITS = {"loops_for_ever": 1.0}  # a shorter timeout
TO_THE_END = "words"
HONEST = sorted((path.parent.name, path.stem) for path in (CHEATS / "honest" / "cpu").glob("*/*.cpp"))


@pytest.fixture(scope="module")
def bench(make_bench):
    return make_bench(targets.here("cpu"), OPS)


@pytest.fixture
def little_memory(monkeypatch):
    given = sandbox.limits
    monkeypatch.setattr(sandbox, "limits", lambda *a: dataclasses.replace(given(*a), memory_bytes=1 << 30))


def needs(stage, reason):
    """Skips what another layer than this machine's would have caught."""
    if reason == FORBIDDEN and seccomp.missing():
        pytest.skip(seccomp.missing())
    if (stage is BUILD or CLOSED in reason) and not landlock.abi():
        pytest.skip("this kernel has no Landlock, or an old one")


@pytest.mark.parametrize(("op", "name"), TABLE, ids=map("-".join, TABLE))
def test_a_cheat_is_rejected_for_its_own_reason(op, name, bench, request):
    stage, status, reason = TABLE[op, name]
    needs(stage, reason)
    if reason == OUT_OF_MEMORY:
        request.getfixturevalue("little_memory")
    verdict = bench.judged(CHEATS / "cpu" / op / f"{name}.cpp", op, WAITS.get(name, TIMEOUT_S), stage)
    assert (verdict.stage, verdict.status) == (stage, status), verdict.failure or verdict.benched
    assert reason in verdict.failure.reason


@pytest.mark.parametrize(("op", "name"), HONEST, ids=map("-".join, HONEST))
def test_an_honest_kernel_passes_check_and_bench(op, name, bench):
    """Whether a gain is shown is the machine's affair; that all it makes is right, in the timed loop too, is not.

    One of each op goes through the engine too.
    """
    last = ENGINE if name == TO_THE_END else BENCH
    verdict = bench.judged(CHEATS / "honest" / "cpu" / op / f"{name}.cpp", op, to=last)
    assert verdict.stage is last and verdict.status in LOSERS, verdict.failure
    assert verdict.checked.right and verdict.benched.ran
    if last is ENGINE:
        assert verdict.engine.right and verdict.engine.dispatched.failure is None


def test_what_only_a_busy_machine_calls_impossible_is_not(bench, tmp_path):
    """The floor was measured when others used the memory: it is measured again."""
    bench.judge.floors["qmatvec"] = Floor(1.0, 1.0, 10**6)
    file = shutil.copy(CHEATS / "honest" / "cpu" / "qmatvec" / "words.cpp", tmp_path / "timed_again.cpp")
    verdict = bench.judged(Path(file), "qmatvec")
    assert verdict.status in LOSERS and bench.judge.floors["qmatvec"].bytes_s < 0.1


def test_every_cheat_is_in_the_table():
    assert {(op, TO_THE_END) for op in OPS} <= {*HONEST}
    files = {(path.parent.name, path.stem) for path in (CHEATS / "cpu").glob("*/*.cpp")}
    assert files == TABLE.keys() and len(files) >= 30 and len(HONEST) >= 8

"""Metal kernels that must be rejected on a machine without a GPU, each for its own reason, and honest ones."""

import pytest

from baseline import seccomp
from harness.candidate import Stage, Status
from harness.targets import Emulated, Target
from tests.cheats.conftest import CHEATS, TIMEOUT_S
from tests.harness.metal_variants import RIGHT, write_contract, write_variant

BUILD, CHECK = Stage.BUILD, Stage.CHECK
OFF = "off by"  # an output is not the oracle's
FORBIDDEN = "made a forbidden system call"
WITHOUT_GPU = Target("metal", (Emulated(),), measures=False, elsewhere="a Mac")
TABLE = {
    "returns_without_computing": (CHECK, Status.UNSAFE, "unwritten output: "),
    "computes_one_row_in_two": (CHECK, Status.WRONG, OFF),
    "leaves_one_element": (CHECK, Status.UNSAFE, "unwritten output: "),
    "fewer_bits_than_declared": (CHECK, Status.WRONG, OFF),
    "accumulates_in_half": (CHECK, Status.WRONG, OFF),
    "skips_the_biases": (CHECK, Status.WRONG, OFF),
    "gives_a_nan": (CHECK, Status.WRONG, "is nan, not"),
    "gives_an_infinity": (CHECK, Status.WRONG, "is inf, not"),
    "writes_past_its_output": (CHECK, Status.UNSAFE, ": out of bounds: "),
    "reads_past_its_input": (CHECK, Status.UNSAFE, ": out of bounds: "),
    "writes_its_input": (BUILD, Status.FAILED_BUILD, "writes_its_input.metal:17:"),
    "races_between_threads": (CHECK, Status.UNSAFE, ": race: "),
    "trusts_fresh_memory": (CHECK, Status.UNSAFE, ": uninit"),
    "too_wide": (BUILD, Status.FAILED_BUILD, "a threadgroup may have 1024 threads"),
    "loops_for_ever": (CHECK, Status.TIMEOUT, "did not end within"),
    "forks": (CHECK, Status.CRASHED, FORBIDDEN),
    "starts_a_program": (CHECK, Status.CRASHED, FORBIDDEN),
    "calls_the_system": (BUILD, Status.FAILED_BUILD, "Metal has no `asm`"),
}
HONEST = sorted(path.stem for path in (CHEATS / "honest" / "emulated").glob("*.metal"))


def prepare(kernels):
    write_contract(kernels)
    write_variant(kernels, "plain", RIGHT)


@pytest.fixture(scope="module")
def bench(make_bench):
    return make_bench(WITHOUT_GPU, ("qmatvec",), prepare)


@pytest.mark.parametrize("name", TABLE)
def test_a_cheat_is_rejected_for_its_own_reason(name, bench):
    stage, status, reason = TABLE[name]
    if reason == FORBIDDEN and seccomp.missing():
        pytest.skip(seccomp.missing())
    verdict = bench.judged(CHEATS / "emulated" / f"{name}.metal", "qmatvec", 3.0 if "loops" in name else TIMEOUT_S)
    assert (verdict.stage, verdict.status) == (stage, status), verdict.failure
    assert reason in verdict.failure.reason


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_kernel_is_right_and_waits_to_be_timed(name, bench):
    verdict = bench.judged(CHEATS / "honest" / "emulated" / f"{name}.metal", "qmatvec")
    assert (verdict.stage, verdict.status) == (CHECK, Status.UNMEASURED), verdict.failure
    assert verdict.checked.right and not verdict.checked.findings


def test_every_cheat_is_in_the_table():
    assert {path.stem for path in (CHEATS / "emulated").glob("*.metal")} == TABLE.keys() and HONEST

from dataclasses import replace

import numpy as np
import pytest

from baseline.contract import Case, load_contract
from baseline.elements import widen
from baseline.reference import oracle
from baseline.variant import Choice, parse_variant
from harness import trials as kinds
from harness import verify as checking
from harness.build import build
from harness.candidate import Checked, Status
from harness.recipes import OTHERS, RECIPES, make_inputs, spread
from harness.targets import Cpu
from harness.tolerance import Comparison, compare
from harness.trials import Trial, trials
from harness.verify import measure_noise, verify
from tests.harness.conftest import KERNELS
from tests.harness.variants import BAD, LOOP, RIGHT, write_variant

TIMEOUT_S = 20.0


def built(path, cache):
    return build(Choice.defaults(parse_variant(path)), load_contract(path.parent.parent), Cpu(), cache)


@pytest.fixture
def check(kernels, cache, tmp_path):
    """Checks a body of qmatvec against the plain kernel's noise."""
    plain = built(kernels / "qmatvec" / "cpu" / "plain.cpp", cache)[1]
    noise = measure_noise(plain, 1, tmp_path, TIMEOUT_S)
    assert noise.right

    def run(body, seed=100, timeout_s=TIMEOUT_S):
        stage, library = built(write_variant(kernels, "tested", body), cache)
        assert stage.failure is None, stage
        return verify(library, noise.errors, seed, tmp_path, timeout_s)

    return run


def test_a_right_kernel_passes_whatever_the_inputs(check):
    for seed in range(100, 1100, 100):
        checked = check(RIGHT, seed)
        assert checked.ran and checked.right and checked.failure is None, checked.failure


REASONS = {
    "loops": (Status.TIMEOUT, "did not end within"),
    "crashes": (Status.CRASHED, "SIG"),
    "writes_past_its_output": (Status.CRASHED, "SIG"),
    "leaves_an_element": (Status.WRONG, "left 1 of 7 elements of y unwritten"),
    "modifies_its_input": (Status.WRONG, "modified its input x"),
    "does_nothing": (Status.WRONG, "left 7 of 7 elements of y unwritten"),
    "skips_the_biases": (Status.WRONG, "tolerance"),
    "sums_in_half": (Status.WRONG, "tolerance"),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_wrong_kernel_fails_with_its_reason(check, name):
    checked = check(BAD[name], timeout_s=1.0 if name == "loops" else TIMEOUT_S)
    status, reason = REASONS[name]
    assert not checked.right and checked.failure.status is status, checked.failure
    assert reason in checked.failure.reason
    assert checked.ran == (status is Status.WRONG)


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_a_kernel_that_misses_by_little_is_checked_once_more(near, right, monkeypatch, tmp_path):
    """The second check alone counts."""
    found = [Checked(True, False, {}, 1.0, near=near), Checked(True, right, {}, 1.0, near=True)]
    monkeypatch.setattr(checking, "_verify", lambda library, noise, seed, *_: found[seed - 7])
    checked = verify(None, {}, 7, tmp_path, 1.0)
    assert checked == (replace(found[1], seconds=2.0) if near else found[0])


@pytest.mark.parametrize(("wrong", "near"), [(0, True), (1, False)])
def test_another_answer_of_the_same_call_is_no_near_miss(wrong, near, monkeypatch):
    """A race that shows by little is not looked at again."""
    found = [Comparison(0.0), Comparison(0.0)]
    found[wrong] = Comparison(9.0, "off", near=True)
    monkeypatch.setattr(checking, "_compare", lambda *_: found.pop(0))
    report, trial = {"findings": [], "hashes": [], "intact": True}, Trial(Case({}, {}), "normal")
    checked = checking._judge(None, [(trial, {}, report, [{}, {}], None)], {}, 8.0)
    assert checked.failure.status is Status.WRONG and checked.near is near


@pytest.mark.parametrize(("excess", "problem", "near"), [(0.9, False, False), (3.5, True, True), (4.5, True, False)])
def test_four_times_the_tolerance_is_no_little(excess, problem, near):
    contract = load_contract(KERNELS / "qmatvec")
    case = next(case for case in contract.check if case.constants["T"] == "float32")
    given = make_inputs(contract, case, "normal", np.random.default_rng(1))
    made = oracle("qmatvec", case.constants, given)["y"]
    rng = np.random.default_rng
    limit = compare(contract, case, contract.outputs[0], given, made, 1e6, rng(2)).limit
    made[0, 0] += excess * limit
    found = compare(contract, case, contract.outputs[0], given, made, 1e6, rng(2))
    assert (found.problem != "", found.near) == (problem, near)


# Each is right but for one kind of activations.
VALUE = "to_float(x[token * K + k])"
BLIND = {
    "denormal": LOOP.replace(VALUE, f"(std::fabs({VALUE}) < 1e-12f ? 0 : {VALUE})"),
    "near-overflow": LOOP.replace(VALUE, f"std::fmin(std::fmax({VALUE}, -65504.0f), 65504.0f)"),
    "constant": LOOP.replace(
        "float total = 0;",
        """float least = 1e38f, most = -1e38f, total = 0;
    for (long k = 0; k < K; ++k) least = std::fmin(least, V), most = std::fmax(most, V);
    if (least == most) { y[i] = from_float<T>(0); continue; }""".replace("V", VALUE),
    ),
    "sparse": LOOP.replace(
        "float total = 0;",
        """float total = 0;
    long zeros = 0;
    for (long k = 0; k < K; ++k) zeros += V == 0;
    if (zeros > K / 2 && zeros < K) { y[i] = from_float<T>(1); continue; }""".replace("V", VALUE),
    ),
}


@pytest.mark.parametrize("recipe", BLIND)
def test_a_kernel_that_one_kind_of_activations_breaks(recipe, check, monkeypatch):
    failure = check(BLIND[recipe]).failure
    assert failure.status is Status.WRONG and f", {recipe} x)" in failure.reason, failure
    monkeypatch.setattr(kinds, "spread", lambda number: [other for other in spread(number) if other != recipe])
    assert check(BLIND[recipe]).right


@pytest.mark.parametrize("op", ["expert_gate_up", "expert_down", "qmatvec", "gated_delta_step"])
def test_extreme_inputs_come_near_what_their_type_holds(op):
    contract = load_contract(KERNELS / op)
    met = set()
    for number, case in enumerate(contract.check):
        met |= {(recipe, case.constants["T"]) for recipe in spread(number)}
        for recipe in ("near-overflow", "denormal"):
            inputs = make_inputs(contract, case, recipe, np.random.default_rng(number))
            name = next(t.name for t in contract.inputs if t.name in ("x", "h", "v"))
            values = np.abs(widen(inputs[name], case.constants["T"]))
            outputs = oracle(op, case.constants, inputs)
            most = {
                t.name: np.abs(outputs[t.name]).max() / RECIPES[recipe].aim[contract.element_type(t, case.constants)]
                for t in contract.outputs
            }
            if recipe == "denormal":
                assert min(most.values()) >= 0.25 and (values < 2.0**-14).any(), (case, most)
            else:
                assert 0.1 < max(most.values()) <= 1, (case, most)
    assert met == {(recipe, kind) for recipe in RECIPES for kind in contract.constants["T"]}
    assert {*spread(0), *spread(1)} == {*RECIPES}, OTHERS


def test_extreme_inputs_are_extreme_however_few_gates_are_drawn():
    """Of five gates alone, all are negative in one of 32 draws: their outputs vanish as the activations grow."""
    contract = load_contract(KERNELS / "expert_gate_up")
    (case,) = [case for case in contract.check if case.constants["I"] * case.dims["p"] == 5]
    for seed in range(300):
        inputs = make_inputs(contract, case, "near-overflow", np.random.default_rng(seed))
        peak = np.abs(oracle("expert_gate_up", case.constants, inputs)["h"]).max()
        assert 2.0**-8 < peak / RECIPES["near-overflow"].aim[case.constants["T"]] <= 1


def test_a_check_says_how_to_have_it_again(check):
    first, again, other = (check(BAD["skips_the_biases"], seed) for seed in (5, 5, 6))
    assert first.seed == 5 and len(first.code) == 16
    assert first.failure == again.failure != other.failure


def test_code_that_changed_after_the_build_is_not_checked(kernels, cache, tmp_path):
    library = built(write_variant(kernels, "tested", RIGHT), cache)[1]
    noise = measure_noise(library, 1, tmp_path, TIMEOUT_S)
    changed = replace(library, code=dict.fromkeys(library.code, "0" * 16))
    assert "not the code that was built" in verify(changed, noise.errors, 1, tmp_path, TIMEOUT_S).failure.reason


def test_a_build_error_is_data(kernels, cache):
    stage, library = built(write_variant(kernels, "broken", BAD["does_not_compile"]), cache)
    assert library is None and stage.failure.status is Status.FAILED_BUILD
    assert "no_such_name" in stage.failure.reason and "\n" not in stage.failure.reason
    assert "no_such_name" in stage.log


def test_a_variant_without_the_bench_shape_fails_to_build(kernels, cache):
    path = write_variant(kernels, "narrow", RIGHT, bits="2")
    stage, library = built(path, cache)
    assert library is None and "does not support the bench shape" in stage.failure.reason


@pytest.mark.parametrize(
    ("op", "name"),
    [("expert_gate_up", "vector"), ("expert_down", "vector"), ("qmatvec", "vector"), ("gated_delta_step", "fused")],
)
def test_the_committed_kernels_pass_all_trials(op, name, cache, tmp_path):
    """At the contract's full list of shapes, the 397B's included."""
    plain = built(KERNELS / op / "cpu" / "plain.cpp", cache)[1]
    noise = measure_noise(plain, 1, tmp_path, 60)
    fast = built(KERNELS / op / "cpu" / f"{name}.cpp", cache)[1]
    assert len(trials(fast)) == 5 * len(fast.contract.check) + 1
    for library, seed in ((plain, 100), (fast, 200)):
        checked = verify(library, noise.errors, seed, tmp_path, 60)
        assert checked.right, checked.failure


@pytest.mark.parametrize(
    ("wrong", "right", "reason"),
    [
        # y is rounded to the activations' type, the state must not be
        ("state[d] += delta", "state[d] = to_float(from_float<T>(state[d])) + delta", "state_out["),
        ("y[i] = ", "state[DK - 1] *= 1.00001f; y[i] = ", "state_out["),
        ("read += state[d]", "read += float(float16(state[d]))", "y["),
        ("y[i] = ", "if (i) y[i] = ", "left 1 of 10 elements of y unwritten"),
        (
            "float* state = state_out",
            "float other[DK]; float* state = i == 0 ? other : state_out",
            "left 32 of 320 elements of state_out unwritten",
        ),
    ],
)
def test_each_of_two_outputs_has_its_own_tolerance(wrong, right, reason, kernels, cache, tmp_path):
    plain = kernels / "gated_delta_step" / "cpu" / "plain.cpp"
    noise = measure_noise(built(plain, cache)[1], 1, tmp_path, TIMEOUT_S)
    source = plain.read_text()
    assert source.count(wrong) == 1
    plain.with_name("wrong.cpp").write_text(source.replace(wrong, right))
    checked = verify(built(plain.with_name("wrong.cpp"), cache)[1], noise.errors, 100, tmp_path, TIMEOUT_S)
    assert checked.failure.status is Status.WRONG and checked.failure.reason.startswith(reason), checked.failure

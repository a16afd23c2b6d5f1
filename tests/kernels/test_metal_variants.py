"""Every Metal variant at every check case that it supports, emulated and sanitised, against the float64 oracle."""

import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from baseline.contract import Case, load_contract
from baseline.elements import Array, widen
from baseline.reference import oracle
from baseline.samples import poisoned_outputs, sample_inputs
from baseline.variant import Choice, Variant, list_variants, parse_variant
from harness.launch import Launch, load
from harness.targets import Emulated
from tests.kernel_call import KERNELS, OPS, PACKED_OPS

# The harness's own factor: measured, none errs by more than 4.9 times the plain kernel's worst, where exp magnifies
# what another order of summation does to a large gate.
TOLERANCE = 8.0
# scale and shift of the activations
INPUTS = ((1.0, 0.0), (4.0, 0.0), (1.0, 2.0))
CONTRACTS = {op: load_contract(KERNELS / op) for op in OPS}
VARIANTS = {(op, v.name): v for op in OPS for v in list_variants(KERNELS, op, "metal")}
ROUNDS_FLOATS = "half_x"  # stages a float32 activation as half: a search should reject it there
Errors = dict[tuple[int, str], float]  # by the case's place in the contract, and the output


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Errors]:
    """Each variant's errors with its default tunables. The compiler works beside the emulator."""
    folder = tmp_path_factory.mktemp("cache")
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda variant: measure(Choice.defaults(variant), folder), VARIANTS.values())
        return dict(zip(VARIANTS, found, strict=True))


def cases_of(variant: Variant) -> list[Case]:
    return [case for case in CONTRACTS[variant.op].check if variant.supports_instance(case.constants)]


def measure(choice: Choice, folder: Path, cases: list[Case] | None = None) -> Errors:
    """The largest error of each case and output, relative to the largest element; a finding fails the test."""
    contract = CONTRACTS[choice.variant.op]
    cases = cases or cases_of(choice.variant)
    entries = Emulated().build(choice, contract, [case.constants for case in cases], folder)
    found: Errors = {}
    for case, entry in zip(cases, entries, strict=True):
        launch = load({**entry, "dims": [case.dims[name] for name in contract.dims]})
        for seed in range(len(INPUTS)):
            for name, error in run(launch, contract.op, contract.check.index(case), seed).items():
                key = (contract.check.index(case), name)
                found[key] = float(np.max([error, found.get(key, 0.0)]))
    return found


@cache
def sample(op: str, index: int, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs, and the oracle's outputs, shared by all variants."""
    case, random = CONTRACTS[op].check[index], np.random.default_rng([index, seed])
    inputs = sample_inputs(CONTRACTS[op], case, random, *INPUTS[seed])
    return inputs, oracle(op, case.constants, inputs)


def run(launch: Launch, op: str, index: int, seed: int) -> dict[str, float]:
    contract, case = CONTRACTS[op], CONTRACTS[op].check[index]
    inputs, exact = sample(op, index, seed)
    outputs = poisoned_outputs(contract, case)
    assert launch.run(list(inputs.values()), list(outputs.values())) == []
    got = {t.name: widen(outputs[t.name], contract.element_type(t, case.constants)) for t in contract.outputs}
    return {name: np.abs(got[name] - exact[name]).max() / np.abs(exact[name]).max() for name in got}


@pytest.mark.parametrize(("op", "name"), VARIANTS)
def test_variant_is_clean_and_matches_the_oracle(op: str, name: str, errors: Mapping[tuple[str, str], Errors]) -> None:
    assert errors[op, name].keys()
    for (index, output), error in errors[op, name].items():
        case = CONTRACTS[op].check[index]
        if (name, case.constants["T"]) != (ROUNDS_FLOATS, "float32"):
            assert error <= TOLERANCE * errors[op, "plain"][index, output], (output, case)


@pytest.mark.parametrize("op", PACKED_OPS)
def test_floats_staged_as_half_are_found_out(op: str, errors: Mapping[tuple[str, str], Errors]) -> None:
    floats = [key for key in errors[op, ROUNDS_FLOATS] if CONTRACTS[op].check[key[0]].constants["T"] == "float32"]
    assert floats
    for key in floats:
        assert errors[op, ROUNDS_FLOATS][key] > TOLERANCE * errors[op, "plain"][key]


@pytest.mark.parametrize("op", OPS)
def test_the_plain_kernel_errs_by_rounding_alone(op: str, errors: Mapping[tuple[str, str], Errors]) -> None:
    rounding = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
    outputs = {tensor.name: tensor for tensor in CONTRACTS[op].outputs}
    for (index, name), error in errors[op, "plain"].items():
        kind = CONTRACTS[op].element_type(outputs[name], CONTRACTS[op].check[index].constants)
        assert error < 2.0**-16 + rounding[kind]


@pytest.mark.parametrize("op", PACKED_OPS)
def test_together_the_variants_cover_every_bit_width_group_and_type(op: str) -> None:
    for name in ("plain", "shipped", "rows"):
        constants = [case.constants for case in cases_of(VARIANTS[op, name])]
        assert {c["BITS"] for c in constants} == {2, 3, 4, 6, 8}
        assert {c["GROUP"] for c in constants} == {32, 64, 128}
        assert {c["T"] for c in constants} == {c["S"] for c in constants} == {"float32", "float16", "bfloat16"}


@pytest.mark.parametrize(("op", "name"), [key for key, variant in VARIANTS.items() if variant.tunables])
def test_tunables_do_not_change_what_is_computed(
    op: str, name: str, errors: Mapping[tuple[str, str], Errors], tmp_path: Path
) -> None:
    variant = VARIANTS[op, name]
    choice = Choice(variant, {name: values[-1] for name, values in variant.tunables.items()})
    few = [case for case in cases_of(variant) if case.constants.get("BITS", 4) in (3, 4)]
    few = [case for case in few if name != ROUNDS_FLOATS or case.constants["T"] != "float32"][:2]
    for key, error in measure(choice, tmp_path, few).items():
        assert error <= TOLERANCE * errors[op, "plain"][key], (key, CONTRACTS[op].check[key[0]])


@pytest.mark.parametrize(
    ("wrong", "right", "finding"),
    [
        (r"threadgroup_barrier\(mem_flags::mem_threadgroup\);\n    \}", "}", "race"),
        (r"if \(n >= N\) continue;.*\n", "if (n >= N) return;\n", "left before barrier"),
        (r"lane == 0 && n < N", "lane == 0", "out of bounds"),
        (r"staged\[k\] = float\(values\[k\]\)", "if (k > 0) staged[k] = float(values[k])", "uninitialised read"),
        (r"y\[token \* N \+ n\] = T\(total\)", "if (n > 0) y[token * N + n] = T(total)", "unwritten output"),
    ],
)
def test_the_shipped_kernel_made_wrong_is_found_out(wrong: str, right: str, finding: str, tmp_path: Path) -> None:
    text = VARIANTS["qmatvec", "shipped"].path.read_text()
    assert len(re.findall(wrong, text)) == 1
    text = re.sub(r"STAGE: \[.*\]", "STAGE: [288]", re.sub(wrong, right, text))  # x in two tiles
    contract = CONTRACTS["qmatvec"]
    path = tmp_path / "qmatvec" / "metal" / "shipped.metal"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    shutil.copy(KERNELS / "qmatvec" / "contract.yaml", tmp_path / "qmatvec")
    case = Case({**contract.check[3].constants, "N": 9}, {"m": 1})  # two threadgroups, the second nearly empty
    (entry,) = Emulated().build(Choice.defaults(parse_variant(path)), contract, [case.constants], tmp_path)
    inputs = sample_inputs(contract, case, np.random.default_rng(0))
    outputs = poisoned_outputs(contract, case)
    launch = load({**entry, "dims": [case.dims[name] for name in contract.dims]})
    found = launch.run(list(inputs.values()), list(outputs.values()))
    assert any(finding in line for line in found), found

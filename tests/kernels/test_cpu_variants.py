"""Every CPU variant against the float64 oracle; the plain kernel's own error is the unit of tolerance."""

import functools
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baseline.contract import Case, load_contract
from baseline.contract import key as key_of
from baseline.elements import Array, widen
from baseline.reference import oracle
from baseline.samples import poisoned_outputs, sample_inputs
from baseline.targets import cpu
from baseline.variant import Choice, Variant, list_variants
from harness.build import OpLibrary, build
from harness.targets import Cpu
from harness.trials import cut
from tests.kernel_call import KERNELS, OPS, PACKED_OPS, call, guarded

# A correct kernel sums in another order: measured, none errs by more than 2.0 times the plain kernel's worst.
TOLERANCE = 4.0
SEEDS = range(6)
# scale and shift of the activations: ordinary, small and large (float16 stays in range), and shifted.
INPUTS = ((1.0, 0.0), (0.1, 0.0), (4.0, 0.0), (1.0, 2.0))
VARIANTS = {op: {v.name: v for v in list_variants(KERNELS, op, "cpu")} for op in OPS}
RUNNABLE = [(op, name) for op in OPS for name, v in VARIANTS[op].items() if not cpu.missing_features(v)]
CONTRACTS = {op: load_contract(KERNELS / op) for op in OPS}
Errors = dict[tuple[int, str], float]  # by the case's place in the contract, and the output


Libraries = Mapping[tuple[str, str], OpLibrary]


@pytest.fixture(scope="module")
def libraries(cache: Path) -> Libraries:
    """Each runnable variant with its default tunables, built as a search does, for all shapes that it supports."""
    found: dict[tuple[str, str], OpLibrary] = {}
    for op, name in RUNNABLE:
        built, library = build(Choice.defaults(VARIANTS[op][name]), CONTRACTS[op], Cpu(), cache)
        assert library is not None, built
        found[op, name] = library
    return found


def _cases(variant: Variant) -> list[Case]:
    return [case for case in CONTRACTS[variant.op].check if variant.supports_instance(case.constants)]


def _build(choice: Choice, folder: Path, cases: list[Case]) -> OpLibrary:
    """A choice for a few cases alone."""
    contract = CONTRACTS[choice.variant.op]
    entries = Cpu().build(choice, contract, [case.constants for case in cases], folder)
    by_key = {key_of(c.constants): e for c, e in zip(cases, entries, strict=True)}
    return OpLibrary(choice, contract, Cpu(), by_key, {})


@functools.cache
def _sample(op: str, case_index: int, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Guarded inputs and the oracle's outputs, shared by all variants."""
    case = CONTRACTS[op].check[case_index]
    scale, shift = INPUTS[seed % len(INPUTS)]
    inputs = sample_inputs(CONTRACTS[op], case, np.random.default_rng([case_index, seed]), scale, shift)
    return {name: guarded(array) for name, array in inputs.items()}, oracle(op, case.constants, inputs)


def _run(library: OpLibrary, case: Case, seed: int, threads: int) -> dict[str, Array]:
    contract, built = library.contract, library.call(case)
    inputs, _ = _sample(contract.op, contract.check.index(case), seed)
    before = {name: array.copy() for name, array in inputs.items()}
    outputs = {name: guarded(array) for name, array in poisoned_outputs(contract, case).items()}
    call(Path(built["library"]), built["symbol"], contract, case, inputs, outputs, threads)
    for name, array in inputs.items():
        assert np.array_equal(array, before[name]), f"{name} was changed"
    return {t.name: widen(outputs[t.name], contract.element_type(t, case.constants)) for t in contract.outputs}


def _error(library: OpLibrary, case: Case, threads: int) -> dict[str, float]:
    """By output the largest error of the seeds, relative to each one's largest element; NaN if one is unwritten."""
    contract = library.contract
    errors: dict[str, list[float]] = {tensor.name: [] for tensor in contract.outputs}
    for seed in SEEDS:
        exact = _sample(contract.op, contract.check.index(case), seed)[1]
        for name, got in _run(library, case, seed, threads).items():
            errors[name].append(np.abs(got - exact[name]).max() / np.abs(exact[name]).max())
    return {name: float(np.max(found)) for name, found in errors.items()}


def _errors(library: OpLibrary, threads: int) -> Errors:
    return {
        (library.contract.check.index(case), name): error
        for case in library.check_cases
        for name, error in _error(library, case, threads).items()
    }


@pytest.fixture(scope="module")
def noise(libraries: Libraries) -> Mapping[str, Errors]:
    """The plain kernel's errors."""
    return {op: _errors(libraries[op, "plain"], 2) for op in OPS}


@pytest.mark.parametrize("op", OPS)
def test_the_plain_kernel_errs_by_rounding_alone(op: str, noise: Mapping[str, Errors]) -> None:
    # Half an ulp of the output's type, on top of up to 2304 float32 additions one after the other.
    rounding = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
    outputs = {tensor.name: tensor for tensor in CONTRACTS[op].outputs}
    for (index, name), error in noise[op].items():
        kind = CONTRACTS[op].element_type(outputs[name], CONTRACTS[op].check[index].constants)
        assert 0 < error < 2.0**-16 + rounding[kind]


@pytest.mark.parametrize(("op", "name"), RUNNABLE)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_variant_matches_the_oracle(
    op: str,
    name: str,
    threads: int,
    libraries: Libraries,
    noise: Mapping[str, Errors],
) -> None:
    for key, error in _errors(libraries[op, name], threads).items():
        assert error <= TOLERANCE * noise[op][key], (key, CONTRACTS[op].check[key[0]])


@pytest.mark.parametrize(("op", "name"), [key for key in RUNNABLE if key[1] != "plain"])
def test_tunables_do_not_change_what_is_computed(
    op: str, name: str, noise: Mapping[str, Errors], tmp_path: Path
) -> None:
    variant = VARIANTS[op][name]
    few = {"BITS": (3, 4), "GROUP": (32,)}
    cases = [c for c in _cases(variant) if all(c.constants.get(n, kept[0]) in kept for n, kept in few.items())]
    choice = Choice(variant, {name: values[-1] for name, values in variant.tunables.items()})
    for key, error in _errors(_build(choice, tmp_path, cases), 2).items():
        assert error <= TOLERANCE * noise[op][key], (key, CONTRACTS[op].check[key[0]])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="switches x86 features off")
@pytest.mark.parametrize("without", [("-mno-avx512f",), ("-mno-avx512f", "-mno-avx2")])
@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("qmatvec", "vector"),
        ("qmatvec", "limbs"),
        ("expert_gate_up", "limbs"),
        ("expert_down", "limbs"),
        ("gated_delta_step", "fused"),
        ("gated_delta_step", "expanded"),
        ("gated_delta_step", "streams"),
    ],
)
def test_narrower_vectors_compute_the_same(
    op: str,
    name: str,
    without: tuple[str, ...],
    noise: Mapping[str, Errors],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "FLAGS", (*cpu.FLAGS, *without))
    variant = VARIANTS[op][name]
    cases = [c for c in _cases(variant) if c.constants.get("GROUP", 32) == 32][:5:2]  # 2, 4 and 8 bits
    assert cpu.missing_features(VARIANTS["qmatvec"]["permute"]) == ("__AVX512F__",)
    library = _build(Choice.defaults(variant), tmp_path, cases)
    for key, error in _errors(library, 2).items():
        assert error <= TOLERANCE * noise[op][key], (key, CONTRACTS[op].check[key[0]])


@pytest.mark.parametrize(("op", "name"), RUNNABLE)
def test_the_order_of_summation_is_fixed(op: str, name: str, libraries: Libraries) -> None:
    library = libraries[op, name]
    for case in library.check_cases:
        first, second = (_run(library, case, 0, 2) for _ in range(2))
        assert all(first[output].tobytes() == second[output].tobytes() for output in first)


PACKED_MISTAKES = [
    (r" \+ bias\)", ")"),  # no bias
    (r"k < length", "k < length - 1"),  # the last value is left out
    (r"scales\[k / GROUP\]", "scales[0]"),  # every group with the first one's scale
    (r"long i = mine.begin", "long i = mine.begin + 1"),  # an output is left unwritten
]
COMBINE_MISTAKES = [
    (r"weight\[pair\] \* ", ""),  # all experts alike
    (r"weight\[pair\]", "weight[first]"),  # every pair with the first one's weight
    (r"slot\[pair\]", "slot[first]"),  # every pair with the first one's expert
    (r"pair < first \+ TOP", "pair <= first"),  # the other pairs are left out
]
DELTA_MISTAKES = [
    (r"g\[head\] \* ", ""),  # no decay
    (r"g\[head\]", "g[head % HV]"),  # every batch entry with the first one's decay
    (r"head % HV / \(HV / HK\)", "head % HK"),  # the keys dealt out in turn
    (r" - recalled", ""),  # what the key already recalls is added again
    (r"\* \(to_float\(v\[i\]\)", "* (0.999f * to_float(v[i])"),  # a value that is almost right
    (r"read \+= state\[d\]", "read += g[head] * before[d]"),  # reads before it learns
    (r"state\[d\] \+= delta \* to_float\(key\[d\]\);", "state[d] += delta * to_float(query[d]);"),
    (r"long i = mine.begin", "long i = mine.begin + 1"),  # a row is left unwritten
]
MISTAKES = [(op, *mistake) for op in PACKED_OPS for mistake in PACKED_MISTAKES]
MISTAKES += [("expert_down", *mistake) for mistake in COMBINE_MISTAKES]
MISTAKES += [("gated_delta_step", *mistake) for mistake in DELTA_MISTAKES]


@pytest.mark.parametrize(("op", "wrong", "right"), MISTAKES)
def test_the_tolerance_rejects_a_wrong_kernel(
    op: str, wrong: str, right: str, noise: Mapping[str, Errors], tmp_path: Path
) -> None:
    plain = VARIANTS[op]["plain"]
    assert len(re.findall(wrong, plain.helpers + plain.body)) == 1
    helpers, body = (re.sub(wrong, right, code) for code in (plain.helpers, plain.body))
    broken = replace(plain, helpers=helpers, body=body)
    cases = [c for c in _cases(plain) if c.constants["T"] == "float32" and int(c.constants.get("BITS", 0)) < 6]
    library = _build(Choice.defaults(broken), tmp_path, cases)
    errors = _errors(library, 1)
    assert any(not error <= TOLERANCE * noise[op][key] for key, error in errors.items())


@pytest.mark.parametrize("op", OPS)
def test_variants_agree_at_the_bench_shape(op: str, libraries: Libraries) -> None:
    contract, bench = CONTRACTS[op], CONTRACTS[op].bench[0]
    one = cut(contract, bench)  # sizes as in the bench, a single row
    inputs = sample_inputs(contract, one, np.random.default_rng(7))
    exact = oracle(op, one.constants, inputs)
    for built in (library.call(one) for (owner, _), library in libraries.items() if owner == op):
        outputs = poisoned_outputs(contract, one)
        call(Path(built["library"]), built["symbol"], contract, one, inputs, outputs, built["threads"])
        for name, expected in exact.items():
            assert np.abs(outputs[name] - expected).max() <= 1e-5 * np.abs(expected).max()

"""The check stage: a kernel's outputs on fresh random inputs against the float64 oracle.

The tolerance is measured, not guessed: FACTOR times the error of the plain kernel on the same kind of input. Errors are
counted in units of the output's sensitivity, how far it moves when each activation changes by a relative 2^-23, because
that makes them comparable between random inputs of which one is far worse conditioned than another.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baseline.contract import Case, Contract
from baseline.elements import STORAGE, Array, widen
from baseline.errors import UsageError
from baseline.reference import oracle
from baseline.samples import sample_inputs
from harness.build import OpLibrary, first_error
from harness.candidate import Checked, Failure, Status
from harness.guarded import POISON, array_hash
from harness.sandbox import ChildStatus, run_child

FACTOR = 8.0
ULP = 2.0**-23
DRAWS = 4  # random perturbations that show the sensitivity
NOISE_RUNS = 3  # runs that show the plain kernel's error
# Half an element's spacing is the least that rounding an output costs; a small output has little else.
FLOOR = {"float32": 2.0**-21, "float16": 2.0**-9, "bfloat16": 2.0**-6}
SMALLEST = {
    "float32": 2.0**-126,
    "float16": 2.0**-24,
    "bfloat16": 2.0**-126,
}  # below it an element has no precision
EDGE_ROWS, RANDOM_ROWS = 64, 512  # of a matrix with more rows than these: the oracle is slow


@dataclass(frozen=True)
class Recipe:
    """Activations: scale * normal + shift, of which only the share `density` is not zero."""

    scale: float = 1.0
    shift: float = 0.0
    density: float = 1.0


# Kept in what float16 can hold: gate times up grows with the square.
RECIPES = {
    "normal": Recipe(),
    "scaled": Recipe(scale=4.0),
    "small": Recipe(scale=2.0**-5),
    "shifted": Recipe(shift=2.0),
    "sparse": Recipe(scale=4.0, density=0.1),
}
STATUS = {
    ChildStatus.TIMEOUT: Status.TIMEOUT,
    ChildStatus.CRASHED: Status.CRASHED,
    ChildStatus.ERROR: Status.CRASHED,
}


@dataclass(frozen=True)
class Trial:
    """One call of a kernel: a case of the contract and the kind of its activations.

    partial: where the backend is too slow for the case, only its first threadgroup runs, and no result is compared.
    sanitize: whether an emulated launch is run in every order of its threads, not in one alone.
    """

    case: Case
    recipe: str
    partial: bool = False
    sanitize: bool = True

    @property
    def label(self) -> str:
        """Names the trial in a reason; offsets follow from the sizes and are left out."""
        shown = {name: v for name, v in {**self.case.constants, **self.case.dims}.items() if "_" not in name}
        return " ".join(f"{name}={value}" for name, value in shown.items()) + f", {self.recipe} x"

    def of(self, output: str) -> str:
        """Names one output of the trial."""
        return f"{output}: {self.label}"


def trials(library: OpLibrary) -> list[Trial]:
    """Every supported check case with every kind of activations, and a smaller cut of each bench case.

    The activations hardly decide what a sanitizer finds: the first kind of each case is enough for it.
    """
    first, partial = next(iter(RECIPES)), not library.backend.full_size
    listed = [Trial(case, recipe, sanitize=recipe == first) for case in library.check_cases for recipe in RECIPES]
    listed += [Trial(cut(library.contract, case), first, partial) for case in library.contract.bench]
    return listed


def cut(contract: Contract, case: Case) -> Case:
    """The case with its dims cut to the least that its shapes can be computed for: the oracle is slow."""
    for most in range(1, max(case.dims.values())):
        smaller = Case(case.constants, {name: min(size, most) for name, size in case.dims.items()})
        with suppress(UsageError):  # a dim that a constant does not divide
            for tensor in (*contract.inputs, *contract.outputs):
                contract.shape(tensor, smaller)
            return smaller
    return case


def make_inputs(contract: Contract, trial: Trial, seed: int) -> dict[str, Array]:
    """Fresh random inputs for a trial, by name, stored as `baseline.elements` stores them."""
    recipe, random = RECIPES[trial.recipe], np.random.default_rng(seed)
    arrays = sample_inputs(contract, trial.case, random, recipe.scale, recipe.shift)
    for tensor in contract.inputs:
        if tensor.type == "T":
            arrays[tensor.name][random.random(arrays[tensor.name].shape) >= recipe.density] = 0
    return arrays


def verify(library: OpLibrary, noise: Mapping[str, float], seed: int, folder: Path, timeout_s: float) -> Checked:
    """Runs every trial in one child and compares. `noise`: the plain kernel's error in each output (`measure_noise`).

    The inputs come from `seed`, which the child does not see, and so do the oracle's answers.
    """
    started = time.perf_counter()
    errors: dict[str, float] = {}

    def end(ran: bool, failure: Failure | None, findings: tuple[str, ...] = ()) -> Checked:
        seconds = time.perf_counter() - started
        return Checked(ran, ran and failure is None, errors, seconds, failure, findings)

    listed = trials(library)
    inputs = [make_inputs(library.contract, t, seed + i) for i, t in enumerate(listed)]
    result = run_child(_job(library, listed, inputs, folder), folder, timeout_s)
    if result.status is not ChildStatus.OK:
        return end(False, Failure(STATUS[result.status], result.reason))
    if "refused" in result.payload:
        return end(False, Failure(Status.FAILED_BUILD, first_error(result.payload["refused"])))
    reports = result.payload["calls"]
    for trial, given, report, outputs in zip(
        listed, inputs, reports, _outputs(library.contract, listed, folder), strict=True
    ):
        if report["findings"]:
            reason = f"{report['findings'][0]} ({trial.label})"
            return end(True, Failure(Status.UNSAFE, reason), tuple(report["findings"]))
        problem = _misbehaviour(given, report)
        if problem is None and not trial.partial:
            found, problem = compare(library.contract, trial, given, outputs, noise)
            errors |= found
        if problem is not None:
            return end(True, Failure(Status.WRONG, f"{problem} ({trial.label})"))
    return end(True, None)


def measure_noise(plain: OpLibrary, seed: int, folder: Path, timeout_s: float) -> Checked:
    """The plain kernel's own errors: `errors` of the result is the `noise` that `verify` needs.

    Their size is not judged here, but everything else about the kernel is.
    """
    kinds = _kinds(plain)
    limitless = dict.fromkeys(kinds, math.inf)
    runs = [verify(plain, limitless, seed + run * len(limitless), folder, timeout_s) for run in range(NOISE_RUNS)]
    failed = next((run for run in runs if run.failure is not None), None)
    if failed is not None:
        return failed
    errors = {label: max(run.errors[label] for run in runs) for label in kinds}
    # A trial with one element of output can come out exact by luck; its kind's typical error is no luck.
    typical = {
        kind: float(np.median([errors[label] for label in kinds if kinds[label] == kind])) for kind in {*kinds.values()}
    }
    noise = {label: max(errors[label], typical[kind]) for label, kind in kinds.items()}
    return Checked(True, True, noise, sum(run.seconds for run in runs))


def _kinds(library: OpLibrary) -> dict[str, tuple[str, str]]:
    """For each output of each trial, what decides the size of its rounding errors: which output it is, and T."""
    return {
        trial.of(output.name): (output.name, str(trial.case.constants["T"]))
        for trial in trials(library)
        if not trial.partial
        for output in library.contract.outputs
    }


def _job(library: OpLibrary, listed: list[Trial], inputs: list[dict[str, Array]], folder: Path) -> dict[str, object]:
    arrays = {f"{i}.{name}": array for i, given in enumerate(inputs) for name, array in given.items()}
    np.savez(folder / "check.inputs.npz", allow_pickle=False, **arrays)
    calls = [
        {
            **library.call(trial.case),
            "first_threadgroup": trial.partial,
            "sanitize": trial.sanitize,
            "inputs": [f"{i}.{name}" for name in given],
            "outputs": output_arrays(library.contract, trial.case),
        }
        for i, (trial, given) in enumerate(zip(listed, inputs, strict=True))
    ]
    files = {kind: str((folder / f"check.{kind}.npz").resolve()) for kind in ("inputs", "outputs")}
    return {"kind": "check", "device": library.backend.device, "calls": calls, **files}


def output_arrays(contract: Contract, case: Case) -> list[dict[str, object]]:
    """Name, numpy dtype and shape of each output, as the child's jobs want them."""
    return [
        {
            "name": tensor.name,
            "dtype": STORAGE[contract.element_type(tensor, case.constants)].name,
            "shape": list(contract.shape(tensor, case)),
        }
        for tensor in contract.outputs
    ]


def _outputs(contract: Contract, listed: list[Trial], folder: Path) -> Iterator[dict[str, Array]]:
    with np.load(folder / "check.outputs.npz") as arrays:
        for i, _ in enumerate(listed):
            yield {tensor.name: arrays[f"{i}.{tensor.name}"] for tensor in contract.outputs}


def _misbehaviour(given: Mapping[str, Array], report: Mapping[str, object]) -> str | None:
    for (name, array), after in zip(given.items(), report["hashes"], strict=True):  # type: ignore[call-overload]
        if array_hash(array) != after:
            return f"modified its input {name}"
    return None if report["intact"] else "wrote in front of a buffer"


def compare(
    contract: Contract, trial: Trial, given: dict[str, Array], outputs: Mapping[str, Array], noise: Mapping[str, float]
) -> tuple[dict[str, float], str | None]:
    """The largest error of each output in units of its sensitivity, and what is wrong with one, if anything."""
    errors: dict[str, float] = {}
    for tensor in contract.outputs:
        kind = contract.element_type(tensor, trial.case.constants)
        got = outputs[tensor.name]
        unwritten = _unwritten(got)
        if unwritten.any():
            return errors, f"left {unwritten.sum()} of {got.size} elements of {tensor.name} unwritten"
        rowwise = {t.name for t in contract.inputs if t.shape[0] == tensor.shape[-1]}
        columns = _columns(got.shape[-1]) if rowwise else np.arange(got.shape[-1])
        cut = {name: array[columns] if name in rowwise else array for name, array in given.items()}
        expected, sensitivity = _truth(contract, trial, cut, tensor.name)
        values = widen(got, kind)[..., columns]
        error = np.abs(values - expected)
        at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        rms = math.sqrt(np.mean(np.square(expected)))
        limit = max(FACTOR * noise[trial.of(tensor.name)] * sensitivity, FLOOR[kind] * rms, SMALLEST[kind])
        errors[trial.of(tensor.name)] = float(error[at]) / sensitivity
        if not (error[at] <= limit and np.isfinite(error[at])):
            place = ", ".join(map(str, (*at[:-1], columns[at[-1]])))
            return errors, (
                f"{tensor.name}[{place}] is {float(values[at]):.7g}, not {float(expected[at]):.7g}: "
                f"off by {float(error[at]):.2e}, tolerance {limit:.2e}"
            )
    return errors, None


def _truth(
    contract: Contract, trial: Trial, given: Mapping[str, Array], output: str
) -> tuple[NDArray[np.float64], float]:
    """The oracle's output, and the most that it moves when the activations change by a relative ULP."""
    constants = trial.case.constants
    expected = oracle(contract.op, constants, given)[output]
    random = np.random.default_rng(0)
    activations = {t.name: contract.element_type(t, constants) for t in contract.inputs if t.type in ("T", "float32")}
    moved = 0.0
    for _ in range(1 if trial.case.constants in [case.constants for case in contract.bench] else DRAWS):
        nudged = dict(given)
        for name, kind in activations.items():
            values = widen(given[name], kind)
            nudged[name] = values * (1 + ULP * random.standard_normal(values.shape))
        # float64 values pass through the oracle's widening unchanged under the name of float32
        shifted = oracle(contract.op, {**constants, "T": "float32"}, nudged)[output]
        moved = max(moved, float(np.abs(shifted - expected).max()))
    return expected, max(moved, np.finfo(np.float64).tiny)


def _columns(count: int) -> NDArray[np.intp]:
    """Which columns of the product with a plain matrix are compared: all, or both edges and others at random."""
    if count <= 2 * EDGE_ROWS + RANDOM_ROWS:
        return np.arange(count)
    inner = EDGE_ROWS + np.random.default_rng().choice(count - 2 * EDGE_ROWS, RANDOM_ROWS, replace=False)
    return np.concatenate([np.arange(EDGE_ROWS), np.sort(inner), np.arange(count - EDGE_ROWS, count)])


def _unwritten(array: Array) -> NDArray[np.bool_]:
    """Which elements still hold the poison."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    untouched: NDArray[np.bool_] = (raw == POISON).all(axis=1)
    return untouched

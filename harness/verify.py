"""The check stage: a kernel's outputs on fresh random inputs against the float64 oracle."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from baseline.contract import Case, Contract
from baseline.elements import STORAGE, Array
from harness.build import OpLibrary, combined, first_error
from harness.candidate import Checked, Failure, Status
from harness.child import AGAIN
from harness.costs import Part, spent_on
from harness.guarded import array_hash
from harness.recipes import make_inputs
from harness.sandbox import ChildResult, ChildStatus, run_child
from harness.tolerance import FACTOR, Comparison, compare
from harness.trials import Trial, trials

Call = tuple[Trial, dict[str, Array], Mapping[str, Any], list[dict[str, Array]], np.random.Generator]
"""A trial, its inputs, the child's report of it, its outputs, which are several where the same call
gave others again, and what draws the columns to compare."""
# What reading a forged result raises.
MALFORMED = (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError, SafetensorError)
NOISE_RUNS = 3  # runs that show the plain kernel's error
STATUS = {
    ChildStatus.TIMEOUT: Status.TIMEOUT,
    ChildStatus.CRASHED: Status.CRASHED,
    ChildStatus.ERROR: Status.CRASHED,
}


def verify(
    library: OpLibrary,
    noise: Mapping[str, float],
    seed: int,
    folder: Path,
    timeout_s: float,
    factor: float = FACTOR,
) -> Checked:
    """Runs every trial in one child and compares. `noise`: the plain kernel's error in each output (`measure_noise`),
    `factor` times which is the tolerance. A kernel that misses it by little is checked again, once, on other inputs,
    and those alone count.

    The inputs come from `seed`, which the child does not see, and so do the oracle's answers.
    """
    checked = _verify(library, noise, seed, folder, timeout_s, factor)
    if not checked.near:
        return checked
    again = _verify(library, noise, seed + 1, folder, timeout_s, factor)
    return replace(again, seconds=checked.seconds + again.seconds)


def _verify(
    library: OpLibrary, noise: Mapping[str, float], seed: int, folder: Path, timeout_s: float, factor: float
) -> Checked:
    started = time.perf_counter()
    listed = trials(library)
    randoms = [np.random.default_rng([seed, number]) for number in range(len(listed))]
    with spent_on(Part.INPUTS):
        inputs = [make_inputs(library.contract, t.case, t.recipe, r) for t, r in zip(listed, randoms, strict=True)]
        job = _job(library, listed, inputs, folder)
    result = run_child(job, folder, timeout_s)
    failure = _failure(library, result)
    found = Checked(failure is None, False, {}, 0.0, failure)
    if failure is None:
        outputs = _outputs(library.contract, listed, folder)
        try:
            calls = zip(listed, inputs, result.payload["calls"], outputs, randoms, strict=True)
            with spent_on(Part.COMPARING):
                found = _judge(library.contract, calls, noise, factor)
        except MALFORMED as error:
            found = replace(found, failure=Failure(Status.DISHONEST, f"its process left no answers: {error!r}"))
    return replace(found, seconds=time.perf_counter() - started, seed=seed, code=combined(library.code))


def _failure(library: OpLibrary, result: ChildResult) -> Failure | None:
    """What kept the process from calling the kernels, if anything."""
    if result.status is not ChildStatus.OK:
        return Failure(STATUS[result.status], result.reason)
    if result.payload.get("code") != library.code:
        return Failure(Status.WRONG, "the code that was loaded is not the code that was built")
    if "refused" in result.payload:
        return Failure(Status.FAILED_BUILD, first_error(str(result.payload["refused"])))
    return None


def _judge(contract: Contract, calls: Iterable[Call], noise: Mapping[str, float], factor: float) -> Checked:
    """The errors, and what is wrong with the first call that is not in order."""
    errors = dict[str, float]()
    for trial, given, report, outputs, random in calls:
        if report["findings"]:
            found = tuple(report["findings"])
            return Checked(True, False, errors, 0.0, Failure(Status.UNSAFE, f"{found[0]} ({trial.label})"), found)
        problem, near = _misbehaviour(given, report), False
        for number, made in enumerate([] if problem or trial.partial else outputs):
            different = "the same call again gave something else: " if number else ""
            compared = _compare(contract, trial, given, made, noise, factor, random, errors)
            if compared.problem:
                problem, near = different + compared.problem, compared.near and not number
                break
        if problem:
            failure = Failure(Status.WRONG, f"{problem} ({trial.label})")
            return Checked(True, False, errors, 0.0, failure, near=near)
    return Checked(True, True, errors, 0.0)


def measure_noise(plain: OpLibrary, seed: int, folder: Path, timeout_s: float) -> Checked:
    """The plain kernel's own errors: `errors` of the result is the `noise` that `verify` needs.

    Their size is not judged here, but everything else about the kernel is.
    """
    kinds = _kinds(plain)
    limitless = dict.fromkeys(kinds, math.inf)
    runs = [verify(plain, limitless, seed + run, folder, timeout_s) for run in range(NOISE_RUNS)]
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
    files = {"inputs": str((folder / "check.inputs.npz").resolve()), "outputs": str(_made(folder).resolve())}
    return {"kind": "check", "device": library.backend.device, "calls": calls, **files}


def output_arrays(contract: Contract, case: Case) -> list[dict[str, Any]]:
    """Name, numpy dtype and shape of each output, as the child's jobs want them."""
    return [
        {
            "name": tensor.name,
            "dtype": STORAGE[contract.element_type(tensor, case.constants)].name,
            "shape": list(contract.shape(tensor, case)),
        }
        for tensor in contract.outputs
    ]


def _made(folder: Path) -> Path:
    """The file that the child leaves. Nothing in it is code, or swells when it is read: it is a candidate's."""
    return folder / "check.outputs.safetensors"


def _outputs(contract: Contract, listed: list[Trial], folder: Path) -> Iterator[list[dict[str, Array]]]:
    arrays = load_file(_made(folder))
    for i, trial in enumerate(listed):
        wanted = output_arrays(contract, trial.case)
        suffixes = [suffix for suffix in ("", AGAIN) if not suffix or f"{i}.{wanted[0]['name']}{suffix}" in arrays]
        yield [{o["name"]: _sound(arrays[f"{i}.{o['name']}{suffix}"], o) for o in wanted} for suffix in suffixes]


def _sound(array: Array, wanted: Mapping[str, Any]) -> Array:
    """An array, if it is an output as `output_arrays` describes it."""
    if (array.dtype.name, list(array.shape)) != (wanted["dtype"], wanted["shape"]):
        raise ValueError(f"{wanted['name']} is {array.dtype.name} {array.shape}")
    return array


def _misbehaviour(given: Mapping[str, Array], report: Mapping[str, Any]) -> str | None:
    for (name, array), after in zip(given.items(), report["hashes"], strict=True):
        if array_hash(array) != after:
            return f"modified its input {name}"
    return None if report["intact"] else "wrote in front of a buffer"


def _compare(
    contract: Contract,
    trial: Trial,
    given: Mapping[str, Array],
    outputs: Mapping[str, Array],
    noise: Mapping[str, float],
    factor: float,
    random: np.random.Generator,
    errors: dict[str, float],
) -> Comparison:
    """The first output that something is wrong with, or the last; adds each one's error in units of its sensitivity to
    `errors`."""
    for tensor in contract.outputs:
        label = trial.of(tensor.name)
        found = compare(contract, trial.case, tensor, given, outputs[tensor.name], factor * noise[label], random)
        errors[label] = found.error
        if found.problem:
            break
    return found

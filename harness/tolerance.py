"""How far a kernel's outputs may be from the oracle's, and whether they are.

The tolerance is measured, not guessed: a factor times the error of the plain kernel on the same kind of input. Errors
are counted in units of the output's sensitivity, how far it moves when each activation changes by a relative 2^-23,
because that makes them comparable between random inputs of which one is far worse conditioned than another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseline.contract import Case, Contract, Tensor
from baseline.elements import Array, widen
from baseline.reference import formula
from harness.guarded import POISON

FACTOR = 8.0  # the tolerance in units of the plain kernel's error
NEAR = 4.0  # tolerances
ULP = 2.0**-23
DRAWS = 4  # random perturbations that show the sensitivity
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half an element's spacing at most, of it
# Of all outputs' size: rounding costs the large ones that much, and a small output has little else.
FLOOR = {"float32": 2.0**-21, "float16": 2.0**-9, "bfloat16": 2.0**-6}
SMALLEST = {
    "float32": 2.0**-126,
    "float16": 2.0**-24,
    "bfloat16": 2.0**-126,
}  # below it an element has no precision: a kernel may flush what it computes in float32 to zero, as GPUs do
EDGE_ROWS, RANDOM_ROWS = 64, 512  # of a matrix with more rows than these: the oracle is slow


@dataclass(frozen=True)
class Comparison:
    """An output's largest error in units of its sensitivity, and what is wrong with it; '' when nothing is. limit: how
    far it may be from the oracle's; a large element may be rounded beside that."""

    error: float
    problem: str = ""
    limit: float = 0.0
    near: bool = False  # wrong by little: an honest kernel's largest error is as far off in one of a hundred checks


def compare(
    contract: Contract,
    case: Case,
    tensor: Tensor,
    given: Mapping[str, Array],
    got: Array,
    allowed: float,
    random: np.random.Generator,
) -> Comparison:
    """One output of a kernel against the oracle's. `allowed`: the error, in units of sensitivity, that is in order."""
    kind = contract.element_type(tensor, case.constants)
    unwritten = _unwritten(got)
    if unwritten.any():
        return Comparison(math.inf, f"left {unwritten.sum()} of {got.size} elements of {tensor.name} unwritten")
    rowwise = {t.name for t in contract.inputs if t.shape[0] == tensor.shape[-1]}
    columns = _columns(got.shape[-1], random) if rowwise else np.arange(got.shape[-1])
    cut = {name: array[columns] if name in rowwise else array for name, array in given.items()}
    expected, sensitivity = _truth(contract, case, cut, tensor.name)
    values = widen(got, kind)[..., columns]
    error = np.abs(values - expected)
    limit = max(allowed * sensitivity, FLOOR[kind] * _rms(expected), SMALLEST[kind])
    limits = np.maximum(limit, ROUNDING[kind] * np.abs(expected))
    at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error / limits)), error.shape)
    relative = float(error.max()) / sensitivity
    if error[at] <= limits[at] and np.isfinite(error[at]):
        return Comparison(relative, limit=limit)
    place = ", ".join(map(str, (*at[:-1], columns[at[-1]])))
    return Comparison(
        relative,
        f"{tensor.name}[{place}] is {float(values[at]):.7g}, not {float(expected[at]):.7g}: "
        f"off by {float(error[at]):.2e}, tolerance {float(limits[at]):.2e}",
        limit,
        near=bool(error[at] <= NEAR * limits[at]),
    )


def _rms(values: NDArray[np.float64]) -> float:
    return math.sqrt(np.mean(np.square(values)))


def _truth(
    contract: Contract, case: Case, given: Mapping[str, Array], output: str
) -> tuple[NDArray[np.float64], float]:
    """The oracle's output, and the most that it moves when the activations change by a relative ULP."""
    constants = case.constants
    outputs = formula(contract.op, constants, given)
    expected = outputs(given, str(constants["T"]))[output]
    random = np.random.default_rng(0)
    activations = {t.name: contract.element_type(t, constants) for t in contract.inputs if t.type in ("T", "float32")}
    moved = 0.0
    for _ in range(1 if constants in [case.constants for case in contract.bench] else DRAWS):
        nudged = dict(given)
        for name, kind in activations.items():
            values = widen(given[name], kind)
            nudged[name] = values * (1 + ULP * random.standard_normal(values.shape))
        # float64 values pass through the oracle's widening unchanged under the name of float32
        shifted = outputs(nudged, "float32")[output]
        moved = max(moved, float(np.abs(shifted - expected).max()))
    return expected, max(moved, np.finfo(np.float64).tiny)


def _columns(count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Which columns of the product with a plain matrix are compared: all, or both edges and others at random."""
    if count <= 2 * EDGE_ROWS + RANDOM_ROWS:
        return np.arange(count)
    inner = EDGE_ROWS + random.choice(count - 2 * EDGE_ROWS, RANDOM_ROWS, replace=False)
    return np.concatenate([np.arange(EDGE_ROWS), np.sort(inner), np.arange(count - EDGE_ROWS, count)])


def _unwritten(array: Array) -> NDArray[np.bool_]:
    """Which elements still hold the poison."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    untouched: NDArray[np.bool_] = (raw == POISON).all(axis=1)
    return untouched

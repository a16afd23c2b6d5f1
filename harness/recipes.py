"""Kinds of inputs for a check: activations that are scaled, shifted, sparse, constant, huge or tiny."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from baseline.contract import Case, Contract
from baseline.elements import Array, store, widen
from baseline.reference import formula
from baseline.samples import sample_inputs

# What the largest output of an extreme recipe comes near, by the output's type. A right kernel may sum in any order and
# multiply by whole q before it multiplies by the scale: float32 keeps room for that, and float16 needs none, because
# sums are float32's.
LARGEST = {"float16": 2.0**15, "float32": 2.0**108, "bfloat16": 2.0**108}
# Results stay where flushing the subnormal activations among them to zero, as GPUs do with float32, cannot be seen.
SMALLEST = {"float16": 2.0**-15, "float32": 2.0**-80, "bfloat16": 2.0**-80}
SUBNORMAL = {"float16": 2.0**-20, "float32": 2.0**-140, "bfloat16": 2.0**-130}
SUBNORMAL_SHARE = 0.25
STEP = 8  # halvings or doublings that show how fast outputs follow the activations
LEAST_GROWTH = 0.5  # all outputs grow as the activations do, or as their square
# `q` and `k` stay: what they multiply is extreme already.
EXTREME = ("x", "h", "v", "state_in")


@dataclass(frozen=True)
class Recipe:
    """Activations: scale * normal + shift, of which only the share `density` is not zero.

    The shift is drawn from half of `shift` to `shift`. `aim`: what the largest output of each type comes near;
    `subnormal`: some activations are.
    """

    scale: float = 1.0
    shift: float = 0.0
    density: float = 1.0
    aim: Mapping[str, float] | None = None
    subnormal: bool = False


# All but the last two are kept in what float16 can hold: gate times up grows with the square.
RECIPES = {
    "normal": Recipe(),
    "scaled": Recipe(scale=4.0),
    "small": Recipe(scale=2.0**-5),
    "shifted": Recipe(shift=2.0),
    "sparse": Recipe(scale=4.0, density=0.1),
    "constant": Recipe(scale=0.0, shift=1.0),
    "near-overflow": Recipe(aim=LARGEST),
    "denormal": Recipe(aim=SMALLEST, subnormal=True),
}
FIRST, *OTHERS = RECIPES
OTHERS_OF_A_CASE = 4


def spread(number: int) -> list[str]:
    """The recipes that a contract's case `number` is checked with: all in all cases would take too long.

    Two cases that lie side by side have all of them between them.
    """
    return [FIRST, *(OTHERS[(number * OTHERS_OF_A_CASE + i) % len(OTHERS)] for i in range(OTHERS_OF_A_CASE))]


def make_inputs(contract: Contract, case: Case, name: str, random: np.random.Generator) -> dict[str, Array]:
    """Fresh random inputs of the recipe called `name`, stored as `baseline.elements` stores them."""
    recipe = RECIPES[name]
    arrays = _drawn(contract, case, recipe, random)
    if recipe.aim is not None:
        while (aimed := _aimed(contract, case, arrays, recipe.aim)) is None:
            arrays = _drawn(contract, case, recipe, random)
        arrays = aimed
    if recipe.subnormal:
        _make_subnormal(contract, case, arrays, random)
    return arrays


def _drawn(contract: Contract, case: Case, recipe: Recipe, random: np.random.Generator) -> dict[str, Array]:
    arrays = sample_inputs(contract, case, random, recipe.scale, recipe.shift * random.uniform(0.5, 1.0))
    for tensor in contract.inputs:
        if tensor.type == "T":
            arrays[tensor.name][random.random(arrays[tensor.name].shape) >= recipe.density] = 0
    return arrays


def _aimed(
    contract: Contract, case: Case, arrays: Mapping[str, Array], aim: Mapping[str, float]
) -> dict[str, Array] | None:
    """The inputs with activations times the power of two that brings the outputs near `aim`, and none beyond it.

    None where the outputs do not grow with the activations: all gates, of which there may be few, are negative.
    """
    up = min(aim.values()) > 1
    compute = formula(contract.op, case.constants, arrays)

    def beyond(exponent: int) -> float:
        """By how many doublings the output that is nearest to its aim, or past it, is beyond it."""
        outputs = compute(_scaled(contract, case, arrays, exponent), str(case.constants["T"]))
        peaks = [
            float(np.log2(np.abs(outputs[t.name]).max() / aim[contract.element_type(t, case.constants)]))
            for t in contract.outputs
        ]
        return max(peaks) if up else -min(peaks)

    step = STEP if up else -STEP
    with np.errstate(divide="ignore"):  # outputs that vanish
        growth = (beyond(step) - beyond(0)) / STEP  # doublings of the outputs for one of the activations
    if not growth > LEAST_GROWTH:
        return None
    steps = math.floor(-beyond(0) / growth)
    while not beyond(steps if up else -steps) <= 0:  # or no number, where activations overflow
        steps -= 1
    return _scaled(contract, case, arrays, steps if up else -steps)


def _scaled(contract: Contract, case: Case, arrays: Mapping[str, Array], exponent: int) -> dict[str, Array]:
    scaled = dict(arrays)
    for tensor in contract.inputs:
        if tensor.name in EXTREME:
            element = contract.element_type(tensor, case.constants)
            scaled[tensor.name] = store(np.ldexp(widen(arrays[tensor.name], element), exponent), element)
    return scaled


def _make_subnormal(contract: Contract, case: Case, arrays: dict[str, Array], random: np.random.Generator) -> None:
    """Makes some activations subnormal and, where there are several rows, all of the first."""
    for tensor in contract.inputs:
        if tensor.name in EXTREME:
            element, array = contract.element_type(tensor, case.constants), arrays[tensor.name]
            chosen = random.random(array.shape) < SUBNORMAL_SHARE
            chosen[: len(array) > 1] = True
            array[chosen] = store(SUBNORMAL[element] * random.standard_normal(chosen.sum()), element)

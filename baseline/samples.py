"""Random inputs for an op at one case of its contract, and outputs filled with poison."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from baseline.contract import Case, Contract, Tensor
from baseline.elements import Array, store


def sample_inputs(
    contract: Contract,
    case: Case,
    random: np.random.Generator,
    scale: float = 1.0,
    shift: float = 0.0,
    only: Callable[[Tensor], bool] = lambda _: True,
    calls: tuple[int, ...] = (),
) -> dict[str, Array]:
    """Those inputs that are wanted (`only`), by name, stored as baseline.elements stores them. `calls`: axes in front,
    for the inputs of several calls; not of experts.

    Activations are scale * normal + shift.

    Some stay what a model gives: keys `k` of unit length, `g` and `beta` between 0 and 1, and the routing `weight`s
    of a token, which are positive and add up to about one.
    Weights are random words: every bit pattern is a valid packed weight. What an expert's record holds
    between its tensors is random too, so a kernel that reads it is found out.
    """
    wanted = [tensor for tensor in contract.inputs if only(tensor)]
    return {tensor.name: _sample(contract, tensor, case, random, scale, shift, calls) for tensor in wanted}


def poisoned_outputs(contract: Contract, case: Case) -> dict[str, Array]:
    """Outputs by name in which every element is NaN until a kernel writes it."""
    return {
        tensor.name: store(np.full(contract.shape(tensor, case), np.nan), contract.element_type(tensor, case.constants))
        for tensor in contract.outputs
    }


def _sample(
    contract: Contract,
    tensor: Tensor,
    case: Case,
    random: np.random.Generator,
    scale: float,
    shift: float,
    calls: tuple[int, ...],
) -> Array:
    shape = (*calls, *contract.shape(tensor, case))
    element = contract.element_type(tensor, case.constants)
    if tensor.name == "experts":
        return _experts(case, random, shape)
    if tensor.type == "uint32":
        return random.integers(0, 2**32, shape, dtype=np.uint32)
    if tensor.type == "int32":
        return random.integers(0, case.dims[_index_of(tensor)], shape, dtype=np.int32)
    if tensor.type == "S":
        return _factors(tensor.name, case, random, shape)
    if tensor.name == "weight":
        return store(random.uniform(0.5, 1.5, shape) / int(case.constants["TOP"]), element)
    return store(_activations(tensor.name, random, shape, scale, shift), element)


def _activations(
    name: str, random: np.random.Generator, shape: tuple[int, ...], scale: float, shift: float
) -> NDArray[np.float64]:
    if name in ("g", "beta"):
        return random.uniform(1 / 16, 15 / 16, shape)
    values = scale * random.standard_normal(shape) + shift
    return values / np.linalg.norm(values, axis=-1, keepdims=True) if name == "k" else values


def _index_of(tensor: Tensor) -> str:
    """The dim that an index tensor points into: `row` into r, `slot` into s."""
    return tensor.name[0]


def _experts(case: Case, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    experts = random.integers(0, 2**32, shape, dtype=np.uint32)
    records = experts.view(np.uint8)
    count = int(case.constants["H"]) * int(case.constants["I"]) // int(case.constants["GROUP"])
    for name, offset in case.constants.items():
        if name.endswith(("_SCALES", "_BIASES")):
            part = _factors(name, case, random, (shape[0], count)).view(np.uint8)
            records[:, int(offset) : int(offset) + part.shape[1]] = part
    return experts


def _factors(name: str, case: Case, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Scales near 1 / 2^bits; biases that put a weight's mean near zero, as a real model's do."""
    step = 2.0 ** -int(case.constants["BITS"])
    values = random.uniform(0.5, 1.5, shape) * step
    if name.lower().endswith("biases"):
        values = random.uniform(-0.6, -0.4, shape)
    return store(values, str(case.constants["S"]))

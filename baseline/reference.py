"""A float64 oracle for each op: the formula in plain numpy, which shares no code with any kernel."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseline.contract import Instance
from baseline.elements import STORAGE, Array, widen
from baseline.errors import UsageError

Float64 = NDArray[np.float64]
Tensors = Mapping[str, Array]
Formula = Callable[[Tensors, str], dict[str, Float64]]
"""The outputs for activations that are stored as an element type."""


def oracle(op: str, constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    """The exact outputs of `op` for `inputs`, which are stored as baseline.elements stores them.

    No output is rounded to the op's own type. Raises UsageError for an op without an oracle.
    """
    return formula(op, constants, inputs)(inputs, str(constants["T"]))


def formula(op: str, constants: Instance, weights: Tensors) -> Formula:
    """The oracle with these weights, for activations of any kind: it dequantises once, which takes the longest."""
    if op not in _FORMULAS:
        raise UsageError(f"no oracle for the op {op}; there is one for {', '.join(_FORMULAS)}")
    return _FORMULAS[op](constants, weights)


def dequantize(weight: NDArray[np.uint32], scales: Float64, biases: Float64, bits: int, group_size: int) -> Float64:
    """MLX's affine quantisation: value = scale * q + bias, one scale and bias for `group_size` values.

    weight [..., K * bits / 32] holds q LSB first; scales and biases [..., K / group_size]; returns [..., K].
    """
    values = unpack(weight, bits).reshape(*scales.shape, group_size) * scales[..., None]
    values += biases[..., None]
    return values.reshape(*weight.shape[:-1], -1)


def unpack(weight: NDArray[np.uint32], bits: int) -> NDArray[np.uint32] | NDArray[np.uint64]:
    """The values of [..., words] packed words, [..., words * 32 / bits]; one may straddle two words."""
    if 32 % bits == 0:  # none does
        fields = weight[..., None] >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32(2**bits - 1)
        return fields.reshape(*weight.shape[:-1], -1)
    word, shift = np.divmod(np.arange(weight.shape[-1] * 32 // bits) * bits, 32)
    wide = np.concatenate([weight, np.zeros_like(weight[..., :1])], axis=-1).astype(np.uint64)
    pair = wide[..., word] | wide[..., word + 1] << np.uint64(32)
    return np.bitwise_and(pair >> shift.astype(np.uint64), np.uint64(2**bits - 1))


def _gate_up(constants: Instance, weights: Tensors) -> Formula:
    shape = (int(constants["I"]), int(constants["H"]))
    gates = _of_slots("GATE", shape, constants, weights)
    ups = _of_slots("UP", shape, constants, weights)

    def outputs(inputs: Tensors, element: str) -> dict[str, Float64]:
        x = widen(inputs["x"], element)
        h = np.empty((len(inputs["slot"]), shape[0]))
        for pair, (row, slot) in enumerate(zip(inputs["row"], inputs["slot"], strict=True)):
            gate, up = gates[slot] @ x[row], ups[slot] @ x[row]
            with np.errstate(over="ignore"):  # e^-gate is infinite where silu is 0
                h[pair] = gate / (1 + np.exp(-gate)) * up
        return {"h": h}

    return outputs


def _down(constants: Instance, weights: Tensors) -> Formula:
    shape = (int(constants["H"]), int(constants["I"]))
    downs = _of_slots("DOWN", shape, constants, weights)

    def outputs(inputs: Tensors, element: str) -> dict[str, Float64]:
        h = widen(inputs["h"], element)
        products = np.stack([downs[slot] @ row for slot, row in zip(inputs["slot"], h, strict=True)])
        weighted = widen(inputs["weight"], "float32")[:, None] * products
        return {"y": weighted.reshape(-1, int(constants["TOP"]), shape[0]).sum(axis=1)}

    return outputs


def _qmatvec(constants: Instance, weights: Tensors) -> Formula:
    scales, biases = (widen(weights[name], str(constants["S"])) for name in ("scales", "biases"))
    weight = dequantize(weights["w"], scales, biases, int(constants["BITS"]), int(constants["GROUP"]))
    return lambda inputs, element: {"y": widen(inputs["x"], element) @ weight.T}


def _gated_delta_step(constants: Instance, _: Tensors) -> Formula:
    values_per_key = int(constants["HV"]) // int(constants["HK"])

    def outputs(inputs: Tensors, element: str) -> dict[str, Float64]:
        q, k, v, beta = (widen(inputs[name], element) for name in ("q", "k", "v", "beta"))
        g, state = (widen(inputs[name], "float32") for name in ("g", "state_in"))
        q, k = (np.repeat(heads, values_per_key, axis=1) for heads in (q, k))
        state = g[..., None, None] * state
        delta = beta[..., None] * (v - np.einsum("bhvk,bhk->bhv", state, k))
        state = state + delta[..., None] * k[..., None, :]
        return {"y": np.einsum("bhvk,bhk->bhv", state, q), "state_out": state}

    return outputs


def _of_slots(name: str, shape: tuple[int, int], constants: Instance, weights: Tensors) -> dict[int, Float64]:
    """A projection of each expert that is in use, by its slot."""
    return {slot: _projection(name, shape, constants, weights["experts"][slot]) for slot in set(weights["slot"])}


def _projection(name: str, shape: tuple[int, int], constants: Instance, expert: NDArray[np.uint32]) -> Float64:
    """One projection, [outputs, inputs], of one packed expert [STRIDE / 4]."""
    outputs, width = shape
    bits, group, element = int(constants["BITS"]), int(constants["GROUP"]), str(constants["S"])
    packed = np.ascontiguousarray(expert)

    def tensor(part: str, dtype: np.dtype[Any], columns: int) -> Array:
        offset = int(constants[f"{name}_{part}"])
        return np.frombuffer(packed, dtype, outputs * columns, offset).reshape(outputs, columns)

    scales, biases = (widen(tensor(part, STORAGE[element], width // group), element) for part in ("SCALES", "BIASES"))
    return dequantize(tensor("WEIGHT", STORAGE["uint32"], width * bits // 32), scales, biases, bits, group)


_FORMULAS: Mapping[str, Callable[[Instance, Tensors], Formula]] = {
    "expert_gate_up": _gate_up,
    "expert_down": _down,
    "qmatvec": _qmatvec,
    "gated_delta_step": _gated_delta_step,
}

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


def oracle(op: str, constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    """The exact outputs of `op` for `inputs`, which are stored as baseline.elements stores them.

    No output is rounded to the op's own type. Raises UsageError for an op without an oracle.
    """
    if op not in _ORACLES:
        raise UsageError(f"no oracle for the op {op}; there is one for {', '.join(_ORACLES)}")
    return _ORACLES[op](constants, inputs)


def dequantize(weight: NDArray[np.uint32], scales: Float64, biases: Float64, bits: int, group_size: int) -> Float64:
    """MLX's affine quantisation: value = scale * q + bias, one scale and bias for `group_size` values.

    weight [..., K * bits / 32] holds q LSB first; scales and biases [..., K / group_size]; returns [..., K].
    """
    q = unpack(weight, bits).astype(np.float64).reshape(*scales.shape, group_size)
    q *= scales[..., None]
    q += biases[..., None]
    return q.reshape(*weight.shape[:-1], -1)


def unpack(weight: NDArray[np.uint32], bits: int) -> NDArray[np.uint64]:
    """The values of [..., words] packed words, [..., words * 32 / bits]; one may straddle two words."""
    if 32 % bits == 0:  # none does
        fields = weight[..., None] >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32(2**bits - 1)
        return fields.reshape(*weight.shape[:-1], -1).astype(np.uint64)
    word, shift = np.divmod(np.arange(weight.shape[-1] * 32 // bits) * bits, 32)
    wide = np.concatenate([weight, np.zeros_like(weight[..., :1])], axis=-1).astype(np.uint64)
    pair = wide[..., word] | wide[..., word + 1] << np.uint64(32)
    return np.bitwise_and(pair >> shift.astype(np.uint64), np.uint64(2**bits - 1))


def _gate_up(constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    x = widen(inputs["x"], str(constants["T"]))
    shape = (int(constants["I"]), int(constants["H"]))
    h = np.empty((len(inputs["slot"]), shape[0]))
    for pair, (row, slot) in enumerate(zip(inputs["row"], inputs["slot"], strict=True)):
        expert = inputs["experts"][slot]
        gate = _projection("GATE", shape, constants, expert) @ x[row]
        up = _projection("UP", shape, constants, expert) @ x[row]
        with np.errstate(over="ignore"):  # e^-gate is infinite where silu is 0
            h[pair] = gate / (1 + np.exp(-gate)) * up
    return {"h": h}


def _down(constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    h = widen(inputs["h"], str(constants["T"]))
    shape = (int(constants["H"]), int(constants["I"]))
    experts = {slot: _projection("DOWN", shape, constants, inputs["experts"][slot]) for slot in set(inputs["slot"])}
    products = np.stack([experts[slot] @ row for slot, row in zip(inputs["slot"], h, strict=True)])
    weighted = widen(inputs["weight"], "float32")[:, None] * products
    return {"y": weighted.reshape(-1, int(constants["TOP"]), shape[0]).sum(axis=1)}


def _qmatvec(constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    scales, biases = (widen(inputs[name], str(constants["S"])) for name in ("scales", "biases"))
    weight = dequantize(inputs["w"], scales, biases, int(constants["BITS"]), int(constants["GROUP"]))
    return {"y": widen(inputs["x"], str(constants["T"])) @ weight.T}


def _gated_delta_step(constants: Instance, inputs: Tensors) -> dict[str, Float64]:
    q, k, v, beta = (widen(inputs[name], str(constants["T"])) for name in ("q", "k", "v", "beta"))
    g, state = (widen(inputs[name], "float32") for name in ("g", "state_in"))
    values_per_key = int(constants["HV"]) // int(constants["HK"])
    q, k = (np.repeat(heads, values_per_key, axis=1) for heads in (q, k))
    state = g[..., None, None] * state
    delta = beta[..., None] * (v - np.einsum("bhvk,bhk->bhv", state, k))
    state = state + delta[..., None] * k[..., None, :]
    return {"y": np.einsum("bhvk,bhk->bhv", state, q), "state_out": state}


def _projection(name: str, shape: tuple[int, int], constants: Instance, expert: NDArray[np.uint32]) -> Float64:
    """One projection, [outputs, inputs], of one packed expert [STRIDE / 4]."""
    outputs, width = shape
    bits, group, element = int(constants["BITS"]), int(constants["GROUP"]), str(constants["S"])

    def tensor(part: str, dtype: np.dtype[Any], columns: int) -> Array:
        offset = int(constants[f"{name}_{part}"])
        return np.frombuffer(expert.tobytes(), dtype, outputs * columns, offset).reshape(outputs, columns)

    scales, biases = (widen(tensor(part, STORAGE[element], width // group), element) for part in ("SCALES", "BIASES"))
    return dequantize(tensor("WEIGHT", STORAGE["uint32"], width * bits // 32), scales, biases, bits, group)


_ORACLES: Mapping[str, Callable[[Instance, Tensors], dict[str, Float64]]] = {
    "expert_gate_up": _gate_up,
    "expert_down": _down,
    "qmatvec": _qmatvec,
    "gated_delta_step": _gated_delta_step,
}

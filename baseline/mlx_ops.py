"""MLX's own operations for each op, on an op's inputs, and the bytes that any kernel of an op must touch."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from baseline.contract import Case, Contract, Tensor
from baseline.elements import STORAGE

Run = Callable[[Sequence[mx.array]], list[mx.array]]
"""An op's inputs, in the contract's order, to its outputs."""


def bytes_touched(contract: Contract, case: Case) -> int:
    """Bytes that any kernel must read and write: of an expert's record only the projections that the op uses."""

    def size(tensor: Tensor) -> int:
        return prod(contract.shape(tensor, case)) * STORAGE[contract.element_type(tensor, case.constants)].itemsize

    tensors = [tensor for tensor in contract.inputs + contract.outputs if tensor.name != "experts"]
    return sum(map(size, tensors)) + _expert_bytes(contract.op, case)


def _expert_bytes(op: str, case: Case) -> int:
    projections = {"expert_gate_up": 2, "expert_down": 1}.get(op, 0)
    if projections == 0:
        return 0
    values = int(case.constants["H"]) * int(case.constants["I"])
    factors = 2 * values // int(case.constants["GROUP"]) * STORAGE[str(case.constants["S"])].itemsize
    return case.dims["p"] * projections * (values * int(case.constants["BITS"]) // 8 + factors)


def mlx_runs(contract: Contract, case: Case) -> dict[str, Run]:
    """MLX's own operations for the op, on the same inputs."""
    constants = case.constants
    if contract.op == "gated_delta_step":
        return {"mlx ops": _delta_ops(constants), "mlx ops compiled": mx.compile(_delta_ops(constants))}
    quantized: dict[str, Any] = {"group_size": constants["GROUP"], "bits": constants["BITS"], "transpose": True}
    if contract.op == "qmatvec":
        return {"mlx quantized_matmul": lambda i: [mx.quantized_matmul(i[0], *i[1:4], **quantized)]}
    expert = _gate_up_ops if contract.op == "expert_gate_up" else _down_ops
    return {
        f"mlx gather_qmm, x in {dtype}": expert(constants, quantized, getattr(mx, dtype))
        for dtype in ("float32", "bfloat16")
    }


def _delta_ops(constants: Mapping[str, Any]) -> Run:
    repeat = constants["HV"] // constants["HK"]

    def run(inputs: Sequence[mx.array]) -> list[mx.array]:
        q, k, v, g, beta, state = inputs
        q, k = (mx.repeat(heads, repeat, 1)[:, :, None] for heads in (q, k))
        state = state * g[..., None, None]
        delta = (v - (state * k).sum(-1)) * beta[..., None]
        state = state + k * delta[..., None]
        return [(state * q).sum(-1), state]

    return run


def _parts(constants: Mapping[str, Any], experts: mx.array, name: str, dtype: mx.Dtype) -> list[mx.array]:
    """Weights, scales and biases of one projection of every expert, each an array of its own, as MLX wants them."""
    rows, width = (constants["H"], constants["I"]) if name == "DOWN" else (constants["I"], constants["H"])
    scale_type = getattr(mx, constants["S"])

    def part(kind: str, array: mx.array, columns: int) -> mx.array:
        start = constants[f"{name}_{kind}"] // array.itemsize
        return mx.contiguous(array[:, start : start + rows * columns].reshape(-1, rows, columns))

    factors = experts.view(scale_type)
    scales, biases = (part(kind, factors, width // constants["GROUP"]) for kind in ("SCALES", "BIASES"))
    return [part("WEIGHT", experts, width * constants["BITS"] // 32), scales.astype(dtype), biases.astype(dtype)]


class _Parts:
    """The parts of each set's experts, made at first use: before the clock runs, in the repetition that warms up."""

    def __init__(self, constants: Mapping[str, Any], names: Sequence[str], dtype: mx.Dtype) -> None:
        self.constants, self.names, self.dtype = constants, names, dtype
        self.made: dict[int, list[list[mx.array]]] = {}

    def __call__(self, experts: mx.array) -> list[list[mx.array]]:
        if id(experts) not in self.made:
            parts = [_parts(self.constants, experts, name, self.dtype) for name in self.names]
            mx.eval(parts)
            self.made[id(experts)] = parts
        return self.made[id(experts)]


def _gathered(x: mx.array, projection: Sequence[mx.array], slot: mx.array, quantized: Mapping[str, Any]) -> mx.array:
    weight, scales, biases = projection
    return mx.gather_qmm(x, weight, scales, biases, rhs_indices=slot, **quantized)


def _gate_up_ops(constants: Mapping[str, Any], quantized: Mapping[str, Any], dtype: mx.Dtype) -> Run:
    parts = _Parts(constants, ("GATE", "UP"), dtype)

    def run(inputs: Sequence[mx.array]) -> list[mx.array]:
        x, experts, row, slot = inputs
        x = x.astype(dtype)[row][:, None]
        gate, up = (_gathered(x, projection, slot, quantized) for projection in parts(experts))
        return [nn.silu(gate) * up]

    return run


def _down_ops(constants: Mapping[str, Any], quantized: Mapping[str, Any], dtype: mx.Dtype) -> Run:
    parts = _Parts(constants, ("DOWN",), dtype)

    def run(inputs: Sequence[mx.array]) -> list[mx.array]:
        h, experts, slot, weight = inputs
        (projection,) = parts(experts)
        y = _gathered(h.astype(dtype)[:, None], projection, slot, quantized)
        y, weight = (a.reshape(-1, constants["TOP"], width) for a, width in ((y, constants["H"]), (weight, 1)))
        return [(y * weight.astype(dtype)).sum(axis=-2)]

    return run

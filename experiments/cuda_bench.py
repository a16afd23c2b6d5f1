"""How fast kernels run on a CUDA device: bytes touched a second, at decode shapes and at shapes that fill the device.

A kernel is launched many times in one evaluation, on rotating inputs that together exceed the last cache, and the
time of the evaluation is divided by the launches: building the graph is not in it, MLX's own encoding is. At a decode
shape that encoding can be longer than the kernel; the time of a kernel that does nothing, launched alike, is reported
beside it, and a shape that fills the device for some 100 microseconds shows the kernel itself.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from baseline.contract import Case, Contract, Tensor
from baseline.mlx_ops import Run, bytes_touched
from baseline.targets.cuda import Kernel
from baseline.variant import Choice

CACHE_BYTES = 256 * 10**6
"""What rotating inputs exceed together: several times the 50 MB of an H100's second cache."""

NOMINAL_GBPS = {"H100 80GB HBM3": 3352, "H100 PCIe": 2039, "H100 NVL": 3938, "H200": 4814, "A100-SXM4-80GB": 2039}
FULL: Mapping[str, Mapping[str, int]] = {
    "qmatvec": {"N": 248320},  # the 397B model's output head
    "expert_gate_up": {"s": 64, "p": 64},
    "expert_down": {"s": 64, "p": 64},
    "gated_delta_step": {"b": 32},
}
"""What changes in an op's bench case to fill the device in one launch."""


@dataclass(frozen=True)
class Timing:
    """Medians over the repetitions, of one launch; `error` says why there is none."""

    name: str
    us: float = 0.0
    gbps: float = 0.0
    error: str = ""


def full_case(op: str, case: Case) -> Case:
    """The case of an op that fills the device."""
    changed = {**case.constants, **case.dims, **FULL[op]}
    return Case({name: changed[name] for name in case.constants}, {n: int(changed[n]) for n in case.dims})


def rotating_inputs(contract: Contract, case: Case) -> list[list[mx.array]]:
    """Sets of random inputs in the contract's order; together larger than CACHE_BYTES, at most 64 sets."""
    sets = min(64, CACHE_BYTES // bytes_touched(contract, case) + 1)
    inputs = [[_random(contract, tensor, case) for tensor in contract.inputs] for _ in range(max(2, sets))]
    mx.eval(inputs)
    return inputs


def _random(contract: Contract, tensor: Tensor, case: Case) -> mx.array:
    shape, element = contract.shape(tensor, case), contract.element_type(tensor, case.constants)
    if element == "uint32":
        return mx.random.randint(0, 2**31 - 1, shape, dtype=mx.uint32)
    if element == "int32":
        index = {"row": "r", "slot": "s"}[tensor.name]
        return mx.arange(shape[0], dtype=mx.int32) % case.dims[index]
    return mx.random.uniform(0.01, 0.1, shape).astype(getattr(mx, element))


def measure(
    runs: Mapping[str, Run], inputs: Sequence[Sequence[mx.array]], size: int, launches: int, repetitions: int
) -> list[Timing]:
    """Time each run in turn, `repetitions` times over; `size` is the bytes of one launch."""
    errors: dict[str, str] = {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):  # the first compiles and warms up
        for name, run in runs.items():
            if name in errors:
                continue
            try:
                taken = _time(run, inputs, launches)
            except (RuntimeError, ValueError, TypeError) as error:
                errors[name] = first_error(str(error))
                continue
            if repetition:
                seconds[name].append(taken / launches)
    return [_timing(name, seconds[name], size, errors.get(name, "")) for name in runs]


def _timing(name: str, seconds: Sequence[float], size: int, error: str) -> Timing:
    if error or not seconds:
        return Timing(name, error=error or "not measured")
    median = statistics.median(seconds)
    return Timing(name, median * 1e6, size / median / 1e9)


def _time(run: Run, inputs: Sequence[Sequence[mx.array]], launches: int) -> float:
    """Outputs are held until the end, so that writes go to fresh memory too."""
    outputs = [run(inputs[i % len(inputs)]) for i in range(launches)]
    mx.synchronize()
    start = time.perf_counter()
    mx.eval(outputs)
    mx.synchronize()
    return time.perf_counter() - start


def say(text: str) -> None:
    """Progress, at once."""
    print(text, file=sys.stderr, flush=True)


def first_error(text: str) -> str:
    """The first line that names an error, or the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if "error" in line and "Failed to compile" not in line), lines[0])[:300]


def variant_run(choice: Choice, contract: Contract, case: Case) -> Run:
    """A metal or cuda variant as something to measure."""
    kernel = Kernel(choice, contract, case.constants)
    names = [tensor.name for tensor in contract.inputs]
    return lambda inputs: kernel(dict(zip(names, inputs, strict=True)), case.dims)


def floor_us(repetitions: int) -> float:
    """Microseconds of one launch of a kernel that writes one number."""
    kernel: Any = mx.fast.cuda_kernel(
        name="nothing", input_names=["x"], output_names=["y"], source="if (threadIdx.x == 0) y[0] = x[0];"
    )
    options = {"grid": (32, 1, 1), "threadgroup": (32, 1, 1), "output_shapes": [(1,)], "output_dtypes": [mx.float32]}
    inputs = [[mx.zeros(1)]]
    return measure({"nothing": lambda x: kernel(inputs=list(x), **options)}, inputs, 0, 256, repetitions)[0].us


def copy_gbps(repetitions: int) -> float:
    """GB/s, bytes read and written, of a plain copy of 1 GB."""
    count = 2**28
    x = mx.ones(count)
    mx.eval(x)
    kernel: Any = mx.fast.cuda_kernel(
        name="copy",
        input_names=["x"],
        output_names=["y"],
        source="const size_t i = size_t(blockIdx.x) * 256 + threadIdx.x; ((float4*)y)[i] = ((const float4*)x)[i];",
    )
    options = {"grid": (count // 4, 1, 1), "threadgroup": (256, 1, 1), "output_shapes": [(count,)]}

    def run(inputs: Sequence[mx.array]) -> list[mx.array]:
        return kernel(inputs=list(inputs), output_dtypes=[mx.float32], **options)

    return measure({"copy": run}, [[x]], 8 * count, 4, repetitions)[0].gbps

"""Metal variants: a choice of variant and tunables for one set of constants becomes a kernel in MLX's convention.

The same text runs on Apple's GPU through `mx.fast.metal_kernel` and, through the emulator, everywhere else.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from baseline.contract import Case, Contract, Instance, Tensor
from baseline.expressions import evaluate
from baseline.targets.compiler import BuildError
from baseline.variant import Choice

MSL_TYPES = {"float32": "float", "float16": "half", "bfloat16": "bfloat16_t", "uint32": "uint32_t", "int32": "int32_t"}
THREADGROUP_THREADS = 1024
WATERMARK, BLANK = " return;", 0.0
_INT_MAX = 2**31 - 1

Launch = Callable[[Mapping[str, mx.array], Mapping[str, int]], list[mx.array]]
"""A variant for one set of constants: (inputs by name, run-time dims) -> outputs, lazy, in the contract's order."""


@dataclass(frozen=True)
class Geometry:
    """`grid` counts threads, as MLX does."""

    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]


def geometry(choice: Choice, case: Case) -> Geometry:
    """The launch of a metal or cuda variant for a case. Raises BuildError for one that no GPU can run."""
    values = {n: v for n, v in {**case.constants, **case.dims, **choice.tunables}.items() if isinstance(v, int)}
    grid, threadgroup = (_three(choice, key, values) for key in ("grid", "threadgroup"))
    threads = threadgroup[0] * threadgroup[1] * threadgroup[2]
    if min(*grid, *threadgroup) < 1 or threads > THREADGROUP_THREADS:
        raise BuildError(
            f"{choice.variant.path.name}: error: grid {grid} of threadgroups {threadgroup}: sizes must be positive, "
            f"and a threadgroup may have {THREADGROUP_THREADS} threads"
        )
    return Geometry(grid, threadgroup)


def _three(choice: Choice, key: str, values: Mapping[str, int]) -> tuple[int, int, int]:
    given = choice.variant.launch[key]
    assert isinstance(given, tuple)
    x, y, z = (evaluate(expression, values) for expression in given)
    return x, y, z


def header(choice: Choice, instance: Instance) -> str:
    """The constants, the tunables that the code names, and the helpers, which start on the last lines."""
    used = {name: value for name, value in choice.tunables.items() if _names(choice, name)}
    return "\n".join(_constant(name, value) for name, value in {**instance, **used}.items()) + "\n"


def dims(choice: Choice, contract: Contract) -> str:
    """Declarations, on one line, of the run-time dims that the body names, from the inputs' shapes."""
    found = []
    for dim in contract.dims:
        if not _names(choice, dim):
            continue
        tensor, axis = next((t, t.shape.index(dim)) for t in contract.inputs if dim in t.shape)
        found.append(f"const int {dim} = {tensor.name}_shape[{axis}];")
    return " ".join(found)


def _names(choice: Choice, name: str) -> bool:
    return re.search(rf"\b{name}\b", choice.variant.helpers + choice.variant.body) is not None


def _constant(name: str, value: int | str) -> str:
    if isinstance(value, str):
        return f"typedef {MSL_TYPES[value]} {name};"
    return f"constant constexpr {'int' if value <= _INT_MAX else 'long'} {name} = {value};"


def body(choice: Choice, contract: Contract, watermark: bool = False) -> str:
    """The function's text, whose first line is in front of the variant's.

    Nothing that stands behind a body is sure to run: with a `watermark` the function returns at once, and its outputs
    stay the BLANK that they were filled with.
    """
    return f"{dims(choice, contract)}{WATERMARK if watermark else ''}\n{choice.variant.body}"


def kernel_name(choice: Choice, contract: Contract, instance: Instance, watermark: bool = False) -> str:
    """A name that no other source has."""
    text = "\0".join([header(choice, instance), choice.variant.helpers, body(choice, contract, watermark)])
    return f"{contract.op}_{choice.variant.name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def metal(choice: Choice, contract: Contract, instance: Instance, name: str, watermark: bool = False) -> Launch:
    """The variant as a function on Apple's GPU. `watermark`: that of `body`.

    `name` must be one that no other source has: Metal keeps libraries by name. Compiles at the first evaluation.
    """
    variant = choice.variant
    kernel: Any = mx.fast.metal_kernel(
        name=name,
        input_names=[t.name for t in contract.inputs],
        output_names=[t.name for t in contract.outputs],
        header=header(choice, instance) + variant.helpers,
        source=body(choice, contract, watermark),
    )

    def call(inputs: Mapping[str, mx.array], sizes: Mapping[str, int]) -> list[mx.array]:
        case = Case(instance, sizes)
        shape = geometry(choice, case)
        found: list[mx.array] = kernel(
            inputs=[inputs[t.name] for t in contract.inputs],
            grid=shape.grid,
            threadgroup=shape.threadgroup,
            output_shapes=[contract.shape(t, case) for t in contract.outputs],
            output_dtypes=[_dtype(contract, t, instance) for t in contract.outputs],
            init_value=BLANK if watermark else None,
        )
        return found

    return call


def _dtype(contract: Contract, tensor: Tensor, instance: Instance) -> Any:
    return getattr(mx, contract.element_type(tensor, instance))


class GraphKernel:
    """A variant for one set of constants in MLX's graph, which is called as `native.CpuKernel` is."""

    seconds = 0.0  # MLX, which launches the kernel, does not say how long it took

    def __init__(self, contract: Contract, instance: Instance, launch: Launch) -> None:
        self.contract = contract
        self.instance = instance
        self.launch = launch

    def __call__(
        self,
        inputs: Sequence[mx.array],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[mx.Dtype],
        dims: Sequence[int],
    ) -> list[mx.array]:
        """The outputs, in these shapes; their dtypes, and all shapes that the kernel sees, are the contract's."""
        sizes = dict(zip(self.contract.dims, dims, strict=True))
        case = Case(self.instance, sizes)
        named = {
            tensor.name: x.reshape(self.contract.shape(tensor, case))
            for tensor, x in zip(self.contract.inputs, inputs, strict=True)
        }
        return [y.reshape(shape) for y, shape in zip(self.launch(named, sizes), shapes, strict=True)]

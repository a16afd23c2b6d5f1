"""Run a CUDA or a Metal variant on an NVIDIA GPU, through mx.fast.cuda_kernel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import mlx.core as mx

from baseline.contract import Case, Contract, Instance, Value
from baseline.targets.cuda_source import Argument, Text, metal_text, native_text, translate
from baseline.targets.metal import BLANK, geometry
from baseline.variant import Choice

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Kernel:
    """A variant at one instance of its contract, a `metal.Launch`. `watermark`: that of `metal.body`; `fill`: what the
    outputs hold before, None for whatever lies there."""

    choice: Choice
    contract: Contract
    instance: Instance
    watermark: bool = False
    fill: float | None = None

    @cached_property
    def _function(self) -> Callable[..., list[mx.array]]:
        contract, choice = self.contract, self.choice
        inputs, outputs = (tuple(t.name for t in tensors) for tensors in (contract.inputs, contract.outputs))
        name = f"{contract.op}_{choice.variant.name}"
        if choice.variant.target == "metal":
            text = metal_text(choice, contract, self.instance, self.watermark)
            return metal_kernel(name, inputs, outputs, text.source, text.header)
        text = native_text(choice, contract, self.instance, self.watermark)
        return _compiled(name, inputs, outputs, text, True)

    def __call__(self, inputs: Mapping[str, mx.array], dims: Mapping[str, int]) -> list[mx.array]:
        """The contract's outputs, lazily. `inputs` are the contract's by name, of its dtypes.

        Raises BuildError for a launch that no GPU can do; evaluating the outputs raises RuntimeError
        with NVRTC's messages where the text does not compile.
        """
        case = Case(self.instance, dims)
        launch = geometry(self.choice, case)
        return self._function(
            inputs=[inputs[tensor.name] for tensor in self.contract.inputs],
            output_shapes=[self.contract.shape(tensor, case) for tensor in self.contract.outputs],
            output_dtypes=[getattr(mx, self.contract.element_type(t, self.instance)) for t in self.contract.outputs],
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            init_value=BLANK if self.watermark else self.fill,
        )


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
) -> Callable[..., list[mx.array]]:
    """mx.fast.metal_kernel for an NVIDIA GPU: the same arguments, the same kind of callable.

    The header says what of Metal there is: no textures, no simdgroup_matrix, swizzles of neighbours alone.
    """

    def call(
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: Size,
        threadgroup: Size,
        template: Sequence[tuple[str, Any]] = (),
        **options: Any,
    ) -> list[mx.array]:
        arrays = [mx.array(value) if not isinstance(value, mx.array) else value for value in inputs]
        arguments = [Argument(n, _element(a.dtype), a.ndim) for n, a in zip(input_names, arrays, strict=True)]
        arguments += [
            Argument(n, _element(dtype), output=True, atomic=atomic_outputs)
            for n, dtype in zip(output_names, output_dtypes, strict=True)
        ]
        values = {n: value if isinstance(value, int) else _element(value) for n, value in template or ()}
        text = _translated(Text(header, source), tuple(arguments), tuple(values.items()), grid, threadgroup)
        function = _compiled(name, tuple(input_names), tuple(output_names), text, ensure_row_contiguous)
        return function(
            inputs=arrays,
            output_shapes=output_shapes,
            output_dtypes=output_dtypes,
            grid=grid,
            threadgroup=threadgroup,
            **options,
        )

    return call


def _element(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


@lru_cache(maxsize=4096)
def _translated(
    text: Text, arguments: tuple[Argument, ...], template: tuple[tuple[str, Value], ...], grid: Size, group: Size
) -> Text:
    return translate(text, arguments, dict(template), grid, group)


@lru_cache(maxsize=4096)
def _compiled(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], text: Text, contiguous: bool
) -> Callable[..., list[mx.array]]:
    """Building the callable costs nothing; MLX compiles each text at its first evaluation and keeps the result."""
    function: Any = mx.fast.cuda_kernel(
        name=name,
        input_names=list(inputs),
        output_names=list(outputs),
        source=text.source,
        header=text.header,
        ensure_row_contiguous=contiguous,
    )
    return function

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

    @property
    def name(self) -> str:
        """As MLX is given it: that of the file, by which a child knows the variant. Other kernels may have the same."""
        return f"{self.contract.op}_{self.choice.variant.path.stem}"

    def text(self, dims: Mapping[str, int]) -> Text:
        """What mx.fast.cuda_kernel is given. The text of a Metal kernel depends on how the grid is filled; raises
        BuildError for a launch that no GPU can do."""
        if self.choice.variant.target != "metal":
            return self._own_text
        case = Case(self.instance, dims)
        launch, contract = geometry(self.choice, case), self.contract
        arguments = [
            Argument(t.name, contract.element_type(t, self.instance), len(t.shape), output=t in contract.outputs)
            for t in (*contract.inputs, *contract.outputs)
        ]
        return _translated(self._own_text, tuple(arguments), (), launch.grid, launch.threadgroup)

    @cached_property
    def _own_text(self) -> Text:
        made = metal_text if self.choice.variant.target == "metal" else native_text
        return made(self.choice, self.contract, self.instance, self.watermark)

    def __call__(self, inputs: Mapping[str, mx.array], dims: Mapping[str, int]) -> list[mx.array]:
        """The contract's outputs, lazily. `inputs` are the contract's by name, of its dtypes.

        Raises as `text`; evaluating the outputs raises RuntimeError with NVRTC's messages where it does not compile.
        """
        contract, case = self.contract, Case(self.instance, dims)
        names = [tuple(t.name for t in tensors) for tensors in (contract.inputs, contract.outputs)]
        launch = geometry(self.choice, case)
        return _compiled(self.name, *names, self.text(dims), True)(
            inputs=[inputs[name] for name in names[0]],
            output_shapes=[contract.shape(t, case) for t in contract.outputs],
            output_dtypes=[getattr(mx, contract.element_type(t, self.instance)) for t in contract.outputs],
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

"""Metal kernels in the child: on Apple's GPU, and on the emulator."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from baseline import native
from baseline.contract import Case, Contract, load_contract
from baseline.elements import Array
from baseline.targets import emulated, metal
from baseline.variant import Choice, Variant, parse_variant
from harness.launch import Arrays, Launch

UNWRITTEN = "unwritten output"


@cache
def _read(path: Path) -> tuple[Contract, Variant]:
    """A variant's file and the contract above it: a job calls one variant many times."""
    contract = load_contract(path.parent.parent)
    return contract, parse_variant(path, contract)


class MetalLaunch(Launch):
    """A Metal kernel on Apple's GPU, in MLX's graph. A launch takes less time than starting one, so that many are
    evaluated together; they do not depend on each other, and the end of one may overlap with the start of the next."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        self._call = call
        self._contract, variant = _read(Path(call["path"]))
        self._choice = Choice(variant, call["tunables"])
        sizes = dict(zip(self._contract.dims, call["dims"], strict=True))
        self._case = Case(call["constants"], sizes)

    @cached_property
    def _launch(self) -> metal.Launch:
        instance = self._case.constants
        name = metal.kernel_name(self._choice, self._contract, instance)
        return metal.metal(self._choice, self._contract, instance, name)

    def run(self, inputs: Arrays, outputs: Arrays) -> list[str]:
        """See `Launch`. RuntimeError with `harness.launch.REFUSED` where Apple's compiler does not take the kernel."""
        found = self._launch(self.place(inputs, outputs), self._case.dims)
        mx.eval(found)
        for array, output in zip(found, outputs, strict=True):
            raw = np.array(mx.contiguous(array).reshape(-1).view(mx.uint8))
            output.reshape(-1).view(np.uint8)[:] = raw
        return []

    def place(self, inputs: Arrays, outputs: Arrays) -> Any:
        """See `Launch`; MLX makes the outputs."""
        kinds = [self._contract.element_type(t, self._case.constants) for t in self._contract.inputs]
        arrays = [mx.array(a).view(getattr(mx, kind)) for a, kind in zip(inputs, kinds, strict=True)]
        mx.eval(arrays)
        return {tensor.name: array for tensor, array in zip(self._contract.inputs, arrays, strict=True)}

    def seconds(self, placed: Sequence[Any]) -> float:
        """See `Launch`. The graph is built before the clock starts."""
        outputs = [self._launch(arrays, self._case.dims) for arrays in placed]
        started = time.perf_counter()
        mx.eval(outputs)
        return (time.perf_counter() - started) / len(placed)

    def results(self, inputs: Arrays, outputs: Arrays) -> Arrays:
        """See `Launch`: of another call, as MLX has let go of the last one's."""
        self.run(inputs, outputs)
        return outputs


class EmulatedLaunch(MetalLaunch):
    """A Metal kernel on the emulator: `run` sanitises, `seconds` is the emulator's own time."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        super().__init__(call)
        self._source = emulated.variant_source(self._choice, self._contract, self._case.constants)
        self._kernel = native.EmulatedKernel(self._source.name, call["library"], call["symbol"])
        self._sanitize, self._first_only = call.get("sanitize", True), call.get("first_threadgroup", False)

    @cached_property
    def _launch(self) -> metal.Launch:
        instance, library = self._case.constants, Path(self._call["library"])
        return emulated.in_graph(self._choice, self._contract, instance, library, self._call["symbol"])

    def run(self, inputs: Arrays, outputs: Arrays) -> list[str]:
        """See `Launch`. A launch of the first threadgroup alone leaves outputs to the others, which is no finding."""
        shape = metal.geometry(self._choice, self._case)
        grid = map(min, shape.grid, shape.threadgroup) if self._first_only else shape.grid
        facts = [np.array(array.shape, np.int32) for array in inputs]
        found = self._kernel.run(
            list(self._inputs(inputs, facts)),
            [_argument(t.name, array) for t, array in zip(self._contract.outputs, outputs, strict=True)],
            list(grid),
            list(shape.threadgroup),
            sanitize=self._sanitize,
        )
        return [
            f"{file}:{line}: {kind}: {text}" if line else f"{kind}: {text}"
            for kind, text, file, line in found
            if not (self._first_only and kind == UNWRITTEN)
        ]

    def _inputs(self, inputs: Arrays, facts: Arrays) -> Iterator[tuple[str, int, int, int]]:
        for parameter, array, shape in zip(self._source.inputs, inputs, facts, strict=True):
            yield _argument(parameter.name, array)
            if "shape" in parameter.facts:
                yield _argument(f"{parameter.name}_shape", shape)


def _argument(name: str, array: Array) -> tuple[str, int, int, int]:
    return name, array.ctypes.data, array.nbytes, array.itemsize

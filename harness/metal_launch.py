"""Kernels in the child that run in MLX's graph: on Apple's GPU, on NVIDIA's, and on the emulator."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from baseline import native
from baseline.contract import Case, Contract, load_contract
from baseline.elements import Array
from baseline.targets import cuda, emulated, metal
from baseline.variant import Choice, Variant, parse_variant
from harness.launch import Arrays, CpuLaunch, Launch
from harness.slots import FRESH_BYTES

UNWRITTEN = "unwritten output"
WORDS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}

_large: dict[int, tuple[Array, mx.array]] = {}
"""Inputs of timed calls by id, which stays theirs as they are kept, and their copies: too large to be new in a call."""


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

    @property
    def _checked(self) -> metal.Launch:
        """What `run` calls."""
        return self._launch

    def run(self, inputs: Arrays, outputs: Arrays) -> list[str]:
        """See `Launch`; MLX's copies of the inputs are written back, that a change of them shows. RuntimeError with one
        of `harness.launch.REFUSED` where the GPU's compiler does not take the kernel."""
        named = self._named(map(mx.array, inputs))
        found = self._checked(named, self._case.dims)
        mx.eval(found)
        _copy_back([*named.values(), *found], [*inputs, *outputs])
        return []

    def place(self, calls: Sequence[tuple[Arrays, Arrays]]) -> Sequence[Any]:
        """See `Launch`: the outputs of each call as a graph, which is ready to be evaluated once."""
        columns = [self._column(arrays) for arrays in zip(*(inputs for inputs, _ in calls), strict=True)]
        named = [self._named(copies) for copies in zip(*columns, strict=True)]
        mx.eval(named)
        return [self._launch(arrays, self._case.dims) for arrays in named]

    def _named(self, copies: Iterable[mx.array]) -> dict[str, mx.array]:
        """Inputs by name, in the types of the contract."""
        kinds = {t.name: self._contract.element_type(t, self._case.constants) for t in self._contract.inputs}
        return {name: copy.view(getattr(mx, kind)) for (name, kind), copy in zip(kinds.items(), copies, strict=True)}

    def _column(self, arrays: Sequence[Array]) -> Iterable[mx.array]:
        """MLX's copies of one input of all calls. Small ones lie side by side, since each copy that is made alone costs
        more than a launch; of a large one there is one copy, for all calls and all kernels."""
        if arrays[0].nbytes <= FRESH_BYTES:
            return list(self._on_device(mx.array(np.stack(arrays))))
        return [self._kept(array) for array in arrays]

    def _kept(self, array: Array) -> mx.array:
        if id(array) not in _large:
            _large[id(array)] = array, self._on_device(mx.array(array))
        return _large[id(array)][1]

    def _on_device(self, copy: mx.array) -> mx.array:
        """Where the GPU reads it fastest."""
        return copy

    def seconds(self, placed: Sequence[Any]) -> float:
        """See `Launch`."""
        started = time.perf_counter()
        mx.eval(placed)
        return (time.perf_counter() - started) / len(placed)

    def results(self, placed: Any, outputs: Arrays) -> None:
        """See `Launch`."""
        _copy_back(placed, outputs)


class CudaLaunch(MetalLaunch):
    """A CUDA kernel, or a Metal one through a header, on NVIDIA's GPU. No sanitizer has seen it: a check calls it often
    on the same inputs, and its outputs are no numbers before."""

    repeats = CpuLaunch.repeats

    @cached_property
    def _launch(self) -> metal.Launch:
        return cuda.Kernel(self._choice, self._contract, self._case.constants)

    @cached_property
    def _checked(self) -> metal.Launch:
        return cuda.Kernel(self._choice, self._contract, self._case.constants, fill=math.nan)

    def _on_device(self, copy: mx.array) -> mx.array:
        """What comes from numpy lies in memory that moves to the GPU page by page, when a kernel first touches it; what
        the GPU makes of it lies on the GPU. The cache is emptied, or outputs would come to lie in such memory too."""
        made = copy.view(WORDS[copy.itemsize]) | 0
        mx.eval(made)
        del copy  # not before: MLX would reuse its memory
        mx.clear_cache()
        return made


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


def _copy_back(copies: Iterable[mx.array], arrays: Iterable[Array]) -> None:
    """Has `arrays` hold what is in MLX's `copies`, byte for byte."""
    for copy, array in zip(copies, arrays, strict=True):
        array.reshape(-1).view(np.uint8)[:] = np.array(mx.contiguous(copy).reshape(-1).view(mx.uint8))


def _argument(name: str, array: Array) -> tuple[str, int, int, int]:
    return name, array.ctypes.data, array.nbytes, array.itemsize

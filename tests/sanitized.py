"""Kernels for the sanitizer's tests: what they have in common, and what a fault is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baseline import native
from baseline.elements import Array
from baseline.targets.msl_source import KernelSource, Parameter

N = 64
# What every kernel here has: x is 0.5, 1.5, ..; words 0, 1, ..; k 1, 2, 3, 4, so that an index is known at run time
# only.
INPUTS = (
    Parameter("x", "float", facts=("shape", "strides")),
    Parameter("words", "uint32_t"),
    Parameter("k", "int", small=True),
)
ARRAYS = {
    "x": np.arange(N, dtype=np.float32) + 0.5,
    "x_shape": np.array([N], np.int32),
    "x_strides": np.array([1], np.int64),
    "words": np.arange(N, dtype=np.uint32),
    "k": np.array([1, 2, 3, 4], np.int32),
}
SHORT = {
    "i": "thread_position_in_grid.x",
    "t": "thread_index_in_threadgroup",
    "lane": "thread_index_in_simdgroup",
    "group": "simdgroup_index_in_threadgroup",
    "tile": "threadgroup_position_in_grid.x",
}
FIRST_LINE = " ".join(f"const uint {name} = {attribute};" for name, attribute in SHORT.items())
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
DEVICE_BARRIER = "threadgroup_barrier(mem_flags::mem_device);"
SIMD_BARRIER = "simdgroup_barrier(mem_flags::mem_threadgroup);"
STAGE = "threadgroup float a[64]; a[t] = x[i];\n"


@dataclass(frozen=True)
class Kernel:
    """A body that fills y, of N floats; `threads` of its N threads are a threadgroup."""

    body: str
    header: str = ""
    threads: int = N
    grid: int = N
    expected: Callable[[Array], Array] | None = None

    def source(self) -> KernelSource:
        """In MLX's convention. The body's second line is the first of `body`."""
        return KernelSource(
            "case", INPUTS, (Parameter("y", "float"),), f"{FIRST_LINE}\n{self.body}", header=self.header
        )

    def run(self, library: Path, entry: str) -> tuple[list[tuple[str, str, str, int]], Array]:
        y = np.full(N, np.nan, np.float32)
        kernel = native.EmulatedKernel("case", str(library), entry)
        given = [(name, array.ctypes.data, array.nbytes, array.itemsize) for name, array in ARRAYS.items()]
        outputs = [("y", y.ctypes.data, y.nbytes, y.itemsize)]
        return kernel.run(given, outputs, (self.grid, 1, 1), (self.threads, 1, 1)), y


@dataclass(frozen=True)
class Fault:
    """A kernel whose line with `//!` is found as `kind`, the text matching `says`; `fix` makes a twin without fault."""

    kind: str
    says: str
    body: str
    fix: tuple[str, str]
    header: str = ""
    threads: int = N
    grid: int = N
    fixed_threads: int | None = None

    def kernel(self) -> Kernel:
        return Kernel(self.body, self.header, self.threads, self.grid)

    def twin(self) -> Kernel:
        assert self.body.count(self.fix[0]) + self.header.count(self.fix[0]) == 1
        body, header = self.body.replace(*self.fix), self.header.replace(*self.fix)
        return Kernel(body, header, self.fixed_threads or self.threads, self.grid)

    def place(self) -> tuple[str, int]:
        """The file and line that a finding names."""
        for file, text in (("body", f"\n{self.body}"), ("header", self.header)):
            for number, line in enumerate(text.split("\n"), 1):
                if "//!" in line:
                    return file, number
        return "", 0

"""Calls functions of the emulated target's Metal Standard Library: snippets of MSL, compiled, on numpy arrays."""

import ctypes
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baseline.elements import Array
from baseline.targets import compiler

HEADERS = Path(compiler.__file__).parent / "msl"
EMULATOR = HEADERS.parent.parent / "native" / "emulator"
FLAGS = ("-std=c++20", "-O1", "-ffp-contract=off", "-fPIC", f"-I{EMULATOR}")
DTYPES = {
    "bool": np.bool_,
    "char": np.int8,
    "uchar": np.uint8,
    "short": np.int16,
    "ushort": np.uint16,
    "int": np.int32,
    "uint": np.uint32,
    "long": np.int64,
    "ulong": np.uint64,
    "float": np.float32,
    "half": np.float16,
    "bfloat": np.uint16,
}
NAMES = "xyzw"
ALIGNMENT = 32  # that of a long4, in bytes


@dataclass(frozen=True)
class Function:
    """An expression over x, y, z, w (of the argument types, in order) whose value becomes a `result`."""

    name: str
    arguments: tuple[str, ...]
    result: str
    expression: str

    def source(self) -> str:
        """A loop over n elements. Types are MSL's; a vector of three has the room of four."""
        pointers = [f"const {kind}* in_{name}" for kind, name in zip(self.arguments, NAMES, strict=False)]
        values = [f"const {kind} {name} = in_{name}[i];" for kind, name in zip(self.arguments, NAMES, strict=False)]
        return (
            f'extern "C" void call_{self.name}({", ".join([*pointers, f"{self.result}* out", "long n"])}) {{\n'
            f"  for (long i = 0; i < n; ++i) {{ {' '.join(values)} out[i] = {self.expression}; }}\n}}\n"
        )


class Library:
    """Functions compiled into one unit, after `helpers`; `swizzles` are the names that the source uses."""

    def __init__(self, functions: Iterable[Function], helpers: str = "", swizzles: Iterable[str] = ()) -> None:
        self.functions = {function.name: function for function in functions}
        entries = " ".join(f"S({name}, {', '.join(str(letter(c)) for c in name)})" for name in swizzles)
        define = f"#define NF_SWIZZLES(S) {entries}\n" if entries else ""
        unit = f'{define}#include "{HEADERS / "metal_stdlib.h"}"\n{helpers}\n'
        unit += "".join(function.source() for function in self.functions.values())
        tools = compiler.toolchain(FLAGS)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "msl.so")
            command = [*tools.command, *tools.flags, "-shared"]
            compiler.compile_into(
                tools, path, unit, lambda text, out: [[*command, str(text), "-o", str(out)]], [HEADERS, EMULATOR]
            )
            self.handle = ctypes.CDLL(str(path))

    def __call__(self, name: str, *arguments: Array) -> Array:
        """The function's values for the elements of `arguments`: [n] arrays, [n, width] for vectors.

        Each argument takes the storage of its MSL type; bfloats are bit patterns.
        """
        function = self.functions[name]
        inputs = [stored(values, kind) for values, kind in zip(arguments, function.arguments, strict=True)]
        n = len(inputs[0])
        width = room(function.result)
        out = aligned(np.zeros((n, width) if width > 1 else n, dtype_of(function.result)))
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*inputs, out)]
        self.handle[f"call_{name}"](*pointers, ctypes.c_long(n))
        return out[:, : elements(function.result)] if width > 1 else out


def letter(name: str) -> int:
    """The index that a letter of a swizzle stands for."""
    return max("xyzw".find(name), "rgba".find(name))


def elements(kind: str) -> int:
    """How many elements a value of an MSL type has."""
    return int(kind[-1]) if kind[-1].isdigit() else 1


def room(kind: str) -> int:
    """How many elements' room an MSL type takes."""
    return 4 if kind[-1] == "3" and not kind.startswith("packed_") else elements(kind)


def dtype_of(kind: str) -> np.dtype:
    return np.dtype(DTYPES[kind.removeprefix("packed_").rstrip("234")])


def stored(values: Array, kind: str) -> Array:
    values = np.asarray(values, dtype_of(kind))
    missing = room(kind) - elements(kind)
    return aligned(np.pad(values, [(0, 0), (0, missing)]) if missing else values)


def aligned(values: Array) -> Array:
    """A copy where the largest vector may lie."""
    memory = np.zeros(values.nbytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    copy = memory[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy

"""The emulated target: Metal kernels executed on the CPU, one fiber a Metal thread, and sanitised.

`metal_kernel` is a drop-in for `mx.fast.metal_kernel`. The source is translated to C++ (`msl_translate`), compiled with
the MSL headers in `msl/` and with the compiler's own instrumentation of memory accesses, and run by the library in
`baseline/native/emulator`. What the sanitizer finds raises RuntimeError when the outputs are evaluated.
"""

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from baseline import native
from baseline.contract import Case, Contract, Instance, Tensor
from baseline.paths import cache_folder
from baseline.targets import compiler
from baseline.targets.compiler import BuildError, Toolchain
from baseline.targets.metal import BLANK, MSL_TYPES, Launch, body, dims, geometry, header
from baseline.targets.msl_source import KernelSource, Parameter, metal_text, symbol, translation_unit
from baseline.variant import Choice

__all__ = ["BuildError", "KernelSource", "build", "metal_kernel"]

# Kernels cast pointers freely. Frame pointers let the sanitizer name the line that called a helper. Variables start as
# a pattern, so that the result of a forgotten initialisation is wrong every time. Signed integers wrap around as on a
# GPU, which leaves one overflow to find: the least of them divided by -1.
FLAGS = (
    "-std=c++20",
    "-O1",
    "-g1",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-omit-frame-pointer",
    "-fvisibility=hidden",
    "-ftrivial-auto-var-init=pattern",
    "-fwrapv",
    "-fsanitize=thread,alignment,integer-divide-by-zero,signed-integer-overflow",
)
# There is no hook where a structure in memory goes into a call or comes out of one, so every call is inlined; what is
# visible outside the library might be replaced there, and is not. Halves are rounded after each operation.
GCC_FLAGS = (
    "-Wno-narrowing",
    "-Wno-attributes",
    "-Wno-volatile",
    "-Werror=vla",
    "-fsanitize=bounds",
    "-fexcess-precision=16",
    "--param=tsan-instrument-func-entry-exit=0",
    "-finline-functions",
    "-finline-small-functions",
    "--param=early-inlining-insns=1000000",
    "--param=max-inline-insns-auto=1000000",
    "--param=large-function-growth=1000000",
)
CLANG_FLAGS: tuple[str, ...] = (
    "-Wno-everything",
    "-Werror=vla",
    "-fsanitize=array-bounds",
    "-mllvm",
    "-tsan-instrument-func-entry-exit=0",
    "-mllvm",
    "-inline-threshold=1000000",
)
if platform.machine() == "x86_64":  # where clang computes with halves as floats, and rounds them when it stores them
    CLANG_FLAGS += ("-Xclang", "-ffloat16-excess-precision=none")
HEADERS = Path(__file__).parent / "msl"
ABI = Path(__file__).parents[1] / "native" / "emulator"
MATH_MODES = ("safe", "relaxed", "fast")
_DEFINED_TWICE = re.compile(  # as GCC and clang put it
    r"^.*: error: .*(redefinition of (.*\)|'\w+'$)|cannot be overloaded with|class member cannot be redeclared).*$",
    re.MULTILINE,
)
CONSTANT_ELEMENTS = 8  # an input with fewer elements comes in the constant address space, as MLX passes it

TYPES: Mapping[mx.Dtype, str] = {
    mx.bool_: "bool",
    mx.uint8: "uint8_t",
    mx.uint16: "uint16_t",
    mx.uint32: "uint32_t",
    mx.uint64: "uint64_t",
    mx.int8: "int8_t",
    mx.int16: "int16_t",
    mx.int32: "int32_t",
    mx.int64: "int64_t",
    mx.float16: "float16_t",
    mx.bfloat16: "bfloat16_t",
    mx.float32: "float",
    mx.complex64: "complex64_t",
}
TemplateValue = bool | int | mx.Dtype


def build(sources: Sequence[KernelSource], folder: Path) -> Path:
    """The library of kernels (entry point i is msl_source.symbol(i)), from the cache `folder` or compiled.

    Raises BuildError with what is not emulated or the compiler's output, and UsageError as the CPU target's build.
    """
    tools = _toolchain()
    unit = translation_unit(sources)
    path = folder / f"emulated-{sources[0].name}-{tools.key(unit + _headers())}.so"
    if not path.exists():
        try:
            reads = [HEADERS, ABI / "emulator.h", _runtime()]
            compiler.compile_into(tools, path, unit, lambda text, library: _commands(tools, text, library), reads)
        except BuildError as error:
            raise BuildError(_explained(str(error))) from None
    return path


def _explained(message: str) -> str:
    """The compiler sees no address spaces: functions that differ in nothing else are one defined twice."""
    twice = _DEFINED_TWICE.search(message)
    if twice is None:
        return message
    return f"{twice[0]}\nnote: overloads that differ in address spaces alone are not emulated\n{message}"


@cache
def _headers() -> str:
    """All that a unit includes, for the cache's key."""
    paths = sorted(HEADERS.glob("*.h"))
    return "\0".join(path.read_text() for path in (*paths, ABI / "emulator.h"))


def _toolchain() -> Toolchain:
    tools = compiler.toolchain(FLAGS)
    return compiler.toolchain((*FLAGS, *(CLANG_FLAGS if "__clang__" in tools.macros else GCC_FLAGS)))


def _commands(tools: Toolchain, unit: Path, library: Path) -> list[list[str]]:
    """Compile, then link by hand: the compiler would bring its own sanitizer's runtime along."""
    compiled = unit.with_suffix(".o")
    includes = ["-iquote", str(HEADERS), "-iquote", str(ABI)]
    compile_it = [*tools.command, *tools.flags, *includes, "-c", str(unit), "-o", str(compiled)]
    undefined = ["-undefined", "dynamic_lookup"] if _runtime().suffix == ".dylib" else [str(_runtime())]
    return [compile_it, [*tools.command, "-shared", str(compiled), *undefined, "-o", str(library)]]


def _runtime() -> Path:
    """The emulator's library lies beside the extension that loaded it."""
    return next(native.library_folder().glob("libnightforge_emulator.*"))


# ---- the drop-in -----------------------------------------------------------------------------------


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
    compile_options: Mapping[str, str] | None = None,
    *,
    sanitize: bool = True,
) -> "CustomKernel":
    """`mx.fast.metal_kernel` without a GPU: the same arguments, and a callable that takes the same.

    A launch is run in three orders of its threads (forward, reverse, shuffled), whose outputs must agree. Without
    `sanitize` it is run once, and only a finding behind which a run cannot go on raises, such as an access outside a
    buffer. Arithmetic is IEEE's in every math mode. A kernel that never ends never ends here either: who runs kernels
    that he did not write runs them in a process with a time limit. Raises ValueError for arguments that MLX refuses.
    """
    if not output_names:
        raise ValueError("[metal_kernel] Must specify at least one output.")
    for option, value in (compile_options or {}).items():
        if option != "math_mode":
            raise ValueError(f"[metal_kernel] Unknown compile option `{option}`.")
        if value not in MATH_MODES:
            raise ValueError("[metal_kernel] Expected math_mode to be 'safe', 'relaxed', or 'fast'.")
    names = tuple(input_names), tuple(output_names)
    return CustomKernel(name, *names, source, header, ensure_row_contiguous, atomic_outputs, sanitize)


@dataclass(frozen=True)
class CustomKernel:
    """What `metal_kernel` returns: call it with inputs, a grid and the outputs' shapes and dtypes."""

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    header: str
    ensure_row_contiguous: bool
    atomic_outputs: bool
    sanitize: bool

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, TemplateValue]] | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
    ) -> list[mx.array]:
        """The outputs, lazy, on a CPU stream: `grid` counts threads. Builds at the first call for these types.

        A GPU's `stream` stands for the default CPU stream. Raises ValueError as MLX does, and BuildError for a source
        that cannot be built. At evaluation RuntimeError says what the sanitizer found: once, as with any failure of
        MLX's streams, after which the outputs' content means nothing.
        """
        self._check(inputs, output_shapes, output_dtypes, (*grid, *threadgroup))
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        source = self._kernel(arrays, output_dtypes, template or ())
        if verbose:
            print(f"Generated source code for `{self.name}`:\n```\n{metal_text(source)}\n```")
        kernel = _load(self.name, build([source], cache_folder() / "build"))
        infos = [(p.name, *(fact in p.facts for fact in ("shape", "strides", "ndim"))) for p in source.inputs]
        results: list[mx.array] = kernel(
            arrays,
            infos,
            list(self.output_names),
            [list(shape) for shape in output_shapes],
            list(output_dtypes),
            list(grid),
            list(threadgroup),
            init_value=init_value,
            row_contiguous=self.ensure_row_contiguous,
            sanitize=self.sanitize,
            stream=_cpu_stream(stream),
        )
        return results

    def _check(
        self,
        inputs: Sequence[Any],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[mx.Dtype],
        sizes: Sequence[int],
    ) -> None:
        names = {"inputs": self.input_names, "output_shapes": self.output_names, "output_dtypes": self.output_names}
        for (what, expected), given in zip(names.items(), (inputs, shapes, dtypes), strict=True):
            if len(given) != len(expected):
                raise ValueError(
                    f"[metal_kernel] Expected `{what}` to have size {len(expected)} but got size {len(given)}."
                )
        if len(sizes) != 6 or min(sizes) < 0:
            raise ValueError("[metal_kernel] `grid` and `threadgroup` are three sizes each, none of them negative.")

    def _kernel(
        self, arrays: Sequence[mx.array], dtypes: Sequence[mx.Dtype], template: Sequence[tuple[str, TemplateValue]]
    ) -> KernelSource:
        inputs = tuple(self._parameter(name, x) for name, x in zip(self.input_names, arrays, strict=True))
        kind = "atomic<{}>" if self.atomic_outputs else "{}"
        outputs = tuple(
            Parameter(name, kind.format(_type(d))) for name, d in zip(self.output_names, dtypes, strict=True)
        )
        return KernelSource(
            _identifier(self.name),
            inputs,
            outputs,
            self.source,
            self.header,
            tuple(_template_argument(name, value) for name, value in template),
        )

    def _parameter(self, name: str, array: mx.array) -> Parameter:
        facts = [fact for fact in ("shape", "strides", "ndim") if f"{name}_{fact}" in self.source]
        scalar, small = array.ndim == 0, array.size < CONSTANT_ELEMENTS
        return Parameter(name, _type(array.dtype), scalar, small, () if scalar else tuple(facts))


@cache
def _load(name: str, library: Path) -> Callable[..., Any]:
    return native.EmulatedKernel(name, str(library), symbol(0))


def _cpu_stream(stream: Any) -> Any:
    """The stream to run on; None for the caller's current one."""
    if stream is None or (isinstance(stream, mx.Stream) and stream.device == mx.Device(mx.cpu)):
        return stream
    return mx.default_stream(mx.Device(mx.cpu))


def _type(dtype: mx.Dtype) -> str:
    if dtype not in TYPES:
        raise ValueError(f"[metal_kernel] {dtype} is no type of Metal's.")
    return TYPES[dtype]


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _template_argument(name: str, value: TemplateValue) -> tuple[str, str, str]:
    if isinstance(value, bool):
        return "bool", name, str(value).lower()
    if isinstance(value, int):
        return "int", name, str(value)
    if not isinstance(value, mx.Dtype):
        raise ValueError("[metal_kernel] Invalid template argument. Must be `mlx.core.Dtype`, `int` or `bool`.")
    return "typename", name, _type(value)


# ---- variants --------------------------------------------------------------------------------------


def variant_source(choice: Choice, contract: Contract, instance: Instance, watermark: bool = False) -> KernelSource:
    """A Metal variant for one set of constants, as `metal.metal` hands it to MLX. Raises UsageError for constants that
    the contract does not allow."""
    contract.check_instance(instance)
    variant = choice.variant
    constants = header(choice, instance)
    # The body's first line holds the dims; the helpers' follow the constants': both keep the file's line numbers.
    return KernelSource(
        name=f"{contract.op}_{variant.name}",
        inputs=tuple(_variant_input(t, choice, contract, instance) for t in contract.inputs),
        outputs=tuple(Parameter(t.name, MSL_TYPES[contract.element_type(t, instance)]) for t in contract.outputs),
        body=body(choice, contract, watermark),
        header=constants + variant.helpers,
        body_file=variant.path.name,
        header_file=variant.path.name,
        body_line=variant.body_line - 1,
        header_line=variant.helpers_line - constants.count("\n"),
    )


def _variant_input(tensor: Tensor, choice: Choice, contract: Contract, instance: Instance) -> Parameter:
    named = f"{tensor.name}_shape" in dims(choice, contract) + choice.variant.body
    return Parameter(tensor.name, MSL_TYPES[contract.element_type(tensor, instance)], facts=("shape",) if named else ())


@dataclass(frozen=True)
class EmulatedVariant:
    """A built variant: `symbols` are its entry points, one an instance in order."""

    path: Path
    sources: tuple[KernelSource, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The entry point of each instance, in order."""
        return tuple(symbol(index) for index in range(len(self.sources)))


def build_variant(
    choice: Choice, contract: Contract, instances: Sequence[Instance], folder: Path, watermark: bool = False
) -> EmulatedVariant:
    """Compile `choice` with one entry point an instance, or take it from the cache `folder`. Raises as `build`."""
    sources = tuple(variant_source(choice, contract, instance, watermark) for instance in instances)
    return EmulatedVariant(build(sources, folder), sources)


def in_graph(
    choice: Choice,
    contract: Contract,
    instance: Instance,
    library: Path,
    entry: str,
    sanitize: bool = False,
    watermark: bool = False,
) -> Launch:
    """An entry point of a built variant as `metal.metal` gives it, but on a CPU stream; `sanitize` is `metal_kernel`'s.

    What is found raises RuntimeError at evaluation.
    """
    source = variant_source(choice, contract, instance, watermark)
    kernel = native.EmulatedKernel(source.name, str(library), entry)
    infos = [(p.name, *(fact in p.facts for fact in ("shape", "strides", "ndim"))) for p in source.inputs]

    def call(inputs: Mapping[str, mx.array], sizes: Mapping[str, int]) -> list[mx.array]:
        case = Case(instance, sizes)
        shape = geometry(choice, case)
        found: list[mx.array] = kernel(
            [inputs[t.name] for t in contract.inputs],
            infos,
            [t.name for t in contract.outputs],
            [list(contract.shape(t, case)) for t in contract.outputs],
            [getattr(mx, contract.element_type(t, instance)) for t in contract.outputs],
            list(shape.grid),
            list(shape.threadgroup),
            init_value=BLANK if watermark else None,
            sanitize=sanitize,
        )
        return found

    return call

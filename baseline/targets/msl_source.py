"""A custom Metal kernel in MLX's convention, as Metal text and as the C++ that the emulator runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baseline.targets.compiler import BuildError
from baseline.targets.msl_translate import swizzles, translate

MOST_BUFFERS = 31  # that a Metal function takes

# Each attribute that MLX passes to a kernel, its type, and how it follows from nf_thread.
_QUADS, _SIMDS = "({} + 3) / 4", "({} + 31) / 32"
_THREADS = "t->{0}[0] * t->{0}[1] * t->{0}[2]"
_ACTUAL, _DISPATCHED = _THREADS.format("threads_per_threadgroup"), _THREADS.format("dispatch_threads_per_threadgroup")
_UINT3 = "uint3(t->{0}[0], t->{0}[1], t->{0}[2])"
ATTRIBUTES: Mapping[str, tuple[str, str]] = {
    "dispatch_quadgroups_per_threadgroup": ("uint", _QUADS.format(_DISPATCHED)),
    "dispatch_simdgroups_per_threadgroup": ("uint", _SIMDS.format(_DISPATCHED)),
    "dispatch_threads_per_threadgroup": ("uint3", _UINT3.format("dispatch_threads_per_threadgroup")),
    "grid_origin": ("uint3", "uint3(0, 0, 0)"),
    "grid_size": ("uint3", _UINT3.format("threads_per_grid")),
    "quadgroup_index_in_threadgroup": ("uint", "t->index_in_threadgroup / 4"),
    "quadgroups_per_threadgroup": ("uint", _QUADS.format(_ACTUAL)),
    "simdgroup_index_in_threadgroup": ("uint", "t->index_in_threadgroup / 32"),
    "simdgroups_per_threadgroup": ("uint", _SIMDS.format(_ACTUAL)),
    "thread_execution_width": ("uint", "32"),
    "thread_index_in_quadgroup": ("uint", "t->index_in_threadgroup % 4"),
    "thread_index_in_simdgroup": ("uint", "t->index_in_threadgroup % 32"),
    "thread_index_in_threadgroup": ("uint", "t->index_in_threadgroup"),
    "thread_position_in_grid": ("uint3", _UINT3.format("position_in_grid")),
    "thread_position_in_threadgroup": ("uint3", _UINT3.format("position_in_threadgroup")),
    "threadgroup_position_in_grid": ("uint3", _UINT3.format("threadgroup_position_in_grid")),
    "threadgroups_per_grid": ("uint3", _UINT3.format("threadgroups_per_grid")),
    "threads_per_grid": ("uint3", _UINT3.format("threads_per_grid")),
    "threads_per_simdgroup": ("uint", "32"),
    "threads_per_threadgroup": ("uint3", _UINT3.format("threads_per_threadgroup")),
}


@dataclass(frozen=True)
class Parameter:
    """An array that a kernel takes: its MSL type; a scalar comes by reference, a small input as a constant."""

    name: str
    type: str
    scalar: bool = False
    small: bool = False
    facts: tuple[str, ...] = ()  # of shape, strides, ndim: those that the source names


@dataclass(frozen=True)
class KernelSource:
    """A custom kernel in MLX's convention, all that its library depends on. The line numbers are those of the texts'
    first lines in the files that messages name."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    body: str
    header: str = ""
    template: tuple[tuple[str, str, str], ...] = ()  # kind, name, value
    body_file: str = "body"
    header_file: str = "header"
    body_line: int = 1
    header_line: int = 1


def symbol(index: int) -> str:
    """The entry point of the kernel at `index` of a unit."""
    return f"nf_kernel_{index}"


def translation_unit(sources: Sequence[KernelSource]) -> str:
    """The C++ of kernels, each with an entry point: the same sources give the same text.

    Raises BuildError for what is not emulated.
    """
    parts = [swizzles(*(text for source in sources for text in (source.header, source.body)))]
    parts += ['#include "program.h"', "namespace nf_c::nf_program {"]
    for index, source in enumerate(sources):
        if len(_buffers(source)) > MOST_BUFFERS:
            raise BuildError(f"{source.name}: error: {len(_buffers(source))} buffers; Metal has {MOST_BUFFERS}")
        # Side by side, kernels have constants and helpers of the same names.
        around = (f"namespace nf_copy_{index} {{", "}") if len(sources) > 1 else ("", "")
        parts += [around[0], _kernel(source), _entry(symbol(index), source), around[1]]
    return "\n".join([*parts, "}"]) + "\n"


def _kernel(source: KernelSource) -> str:
    names = ", ".join(f"{kind} {name}" for kind, name, _ in source.template)
    return "\n".join(
        [
            f'#line {source.header_line} "{source.header_file}"',
            translate(source.header, source.header_file, source.header_line, function=False),
            '#line 1 "generated"',
            f"template <{names}>" if names else "",
            f"static void nf_custom_kernel({', '.join(_buffers(source) + _attributes(source))}) {{",
            f'#line {source.body_line} "{source.body_file}"',
            translate(source.body, source.body_file, source.body_line),
            '#line 1 "generated"\n}',
        ]
    )


def _entry(name: str, source: KernelSource) -> str:
    values = ", ".join(value for _, _, value in source.template)
    arguments = [_argument(i, declaration) for i, declaration in enumerate(_buffers(source))]
    arguments += [value for attribute, (_, value) in ATTRIBUTES.items() if attribute in source.body]
    return (
        f'extern "C" __attribute__((visibility("default"))) void {name}(void* const* b, const nf_thread* t) {{\n'
        f"  nf_custom_kernel{f'<{values}>' if values else ''}({', '.join(arguments)});\n}}"
    )


def _buffers(source: KernelSource) -> list[str]:
    inputs = [text for parameter in source.inputs for text in _input(parameter)]
    return inputs + [f"device {p.type}* {p.name}" for p in source.outputs]


def _attributes(source: KernelSource) -> list[str]:
    return [f"{kind} {name}" for name, (kind, _) in ATTRIBUTES.items() if name in source.body]


def _input(parameter: Parameter) -> list[str]:
    space = "constant" if parameter.small else "device"
    found = [f"const {space} {parameter.type}{'&' if parameter.scalar else '*'} {parameter.name}"]
    kinds = {"shape": "const constant int* ", "strides": "const constant int64_t* ", "ndim": "const constant int& "}
    return found + [f"{kinds[fact]}{parameter.name}_{fact}" for fact in parameter.facts]


def _argument(index: int, declaration: str) -> str:
    kind = declaration.rpartition(" ")[0]
    if kind.endswith("&"):
        return f"*static_cast<{kind[:-1]}*>(b[{index}])"
    return f"static_cast<{kind}>(b[{index}])"


def metal_text(source: KernelSource) -> str:
    """The Metal kernel that MLX would compile: header, signature, body."""
    parameters = [f"{text} [[buffer({i})]]" for i, text in enumerate(_buffers(source))]
    parameters += [f"{text} [[{text.split()[1]}]]" for text in _attributes(source)]
    names = ", ".join(f"{kind} {name}" for kind, name, _ in source.template)
    first = f"template <{names}>\n" if names else ""
    listed = ",\n  ".join(parameters)
    return f"{source.header}{first}[[kernel]] void {source.name}(\n  {listed}) {{\n{source.body}\n}}"

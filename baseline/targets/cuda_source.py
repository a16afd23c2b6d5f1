"""CUDA text for mx.fast.cuda_kernel: of a native body, and of a Metal body through the msl/cuda_*.h headers.

A native body sees the contract's inputs and outputs by name as plain pointers, the constants and tunables as
compile-time constants (`int`, or `long` where one is too large; T and S as float, __half or __nv_bfloat16), and the
run-time dims that it names as `const int`. CUDA launches whole blocks: in a ragged grid it masks its own threads.

A Metal body becomes a function in namespace metal, where the header's names hide CUDA's of the same name.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from baseline.contract import Contract, Instance, Value
from baseline.targets import metal
from baseline.variant import Choice

HEADERS = ("cuda_types.h", "cuda_vectors.h", "cuda_math.h", "cuda_simd.h")
ATTRIBUTES = {
    "dispatch_quadgroups_per_threadgroup": ("uint", "metal::simd_groups(at.whole) * 8"),
    "dispatch_simdgroups_per_threadgroup": ("uint", "metal::simd_groups(at.whole)"),
    "dispatch_threads_per_threadgroup": ("uint3", "at.whole"),
    "grid_origin": ("uint3", "metal::uint3(0)"),
    "grid_size": ("uint3", "at.grid"),
    "quadgroup_index_in_threadgroup": ("uint", "at.index / 4"),
    "quadgroups_per_threadgroup": ("uint", "metal::simd_groups(at.extent) * 8"),
    "simdgroup_index_in_threadgroup": ("uint", "at.index / 32"),
    "simdgroups_per_threadgroup": ("uint", "metal::simd_groups(at.extent)"),
    "thread_execution_width": ("uint", "32u"),
    "thread_index_in_quadgroup": ("uint", "at.index % 4"),
    "thread_index_in_simdgroup": ("uint", "at.index % 32"),
    "thread_index_in_threadgroup": ("uint", "at.index"),
    "thread_position_in_grid": ("uint3", "at.group * at.whole + at.position"),
    "thread_position_in_threadgroup": ("uint3", "at.position"),
    "threadgroup_position_in_grid": ("uint3", "at.group"),
    "threadgroups_per_grid": ("uint3", "at.groups"),
    "threads_per_grid": ("uint3", "at.grid"),
    "threads_per_simdgroup": ("uint", "32u"),
    "threads_per_threadgroup": ("uint3", "at.extent"),
}
"""The thread attributes that mx.fast.metal_kernel passes: type, and value over `Geometry at` of cuda_simd.h."""

NATIVE = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16", "uint32": "uint32_t", "int32": "int"}
METAL = {
    "float32": "float",
    "float16": "half",
    "bfloat16": "bfloat",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""How CUDA and Metal write MLX's element types."""

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*(?:include|import)\b[^\n]*$|\busing\s+namespace\s+metal\s*;", re.MULTILINE)
_HALF_LITERAL = re.compile(r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[hH]\b")
_UNROLL = re.compile(r"#[ \t]*pragma clang loop unroll\([^)]*\)")
_INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class Text:
    """What mx.fast.cuda_kernel and mx.fast.metal_kernel take as `header` and `source`."""

    header: str
    source: str


@dataclass(frozen=True)
class Argument:
    """One tensor of a Metal kernel; `element` is its type by MLX's name. An input of no dimensions is a reference."""

    name: str
    element: str
    dimensions: int = 1
    output: bool = False
    atomic: bool = False


def native_text(choice: Choice, contract: Contract, instance: Instance, watermark: bool = False) -> Text:
    """A CUDA variant's text. `watermark`: that of `metal.body`."""
    constants = [_constant(name, value, NATIVE) for name, value in {**instance, **choice.tunables}.items()]
    return _text(choice, contract, "\n".join(constants), watermark)


def metal_text(choice: Choice, contract: Contract, instance: Instance, watermark: bool = False) -> Text:
    """A Metal variant's text, still Metal. `watermark`: that of `metal.body`."""
    return _text(choice, contract, metal.header(choice, instance), watermark)


def translate(
    kernel: Text,
    arguments: Sequence[Argument],
    template: Mapping[str, Value],
    grid: Sequence[int],
    group: Sequence[int],
) -> Text:
    """The CUDA text of a Metal kernel. `template` maps a name to an integer or to a type by MLX's name.

    A grid that its threadgroups do not fill becomes part of the text; one that they fill does not.
    """
    body = _COMMENT.sub(_lines_alone, kernel.source)
    passed = [pair for argument in arguments for pair in _passed(argument, body)]
    passed += [(f"const {type} {name}", value) for name, (type, value) in ATTRIBUTES.items() if name in body]
    header = [
        f"#define METAL_WHOLE_SIMD_GROUPS {int(_whole_simd_groups(grid, group))}",
        prelude(),
        "namespace metal {\nnamespace variant {",
        _functions(_words(_COMMENT.sub(_lines_alone, kernel.header))),
        f"__device__ inline void body({', '.join(parameter for parameter, _ in passed)}) {{",
        *(_constant(name, value, METAL) for name, value in template.items()),
        _words(body),
        "}\n}\n}\n",
    ]
    return Text("\n".join(header), _call([value for _, value in passed], grid, group))


@cache
def prelude() -> str:
    """The text of the headers that make CUDA read Metal."""
    folder = files("baseline.targets").joinpath("msl")
    return "\n".join(f'#line 1 "{name}"\n{folder.joinpath(name).read_text()}' for name in HEADERS)


def _text(choice: Choice, contract: Contract, constants: str, watermark: bool) -> Text:
    """Compilers then name the variant's own lines."""
    variant = choice.variant
    file, generated = f'"{variant.path.name}"', '#line 1 "generated"\n'
    helpers = f"#line {variant.helpers_line} {file}\n{variant.helpers}"
    body = f"#line {variant.body_line} {file}\n{variant.body}"
    source = f"{metal.dims(choice, contract)}{metal.WATERMARK if watermark else ''}\n{body}\n{generated}"
    return Text(f"{constants}\n{helpers}\n{generated}", source)


def _constant(name: str, value: Value, spelling: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return f"using {name} = {spelling[value]};"
    kind = "bool" if isinstance(value, bool) else "int" if abs(value) <= _INT_MAX else "long"
    return f"constexpr {kind} {name} = {str(value).lower()};"


def _passed(argument: Argument, body: str) -> list[tuple[str, str]]:
    """Parameters of the body and what CUDA's kernel passes: the tensor, and its shape where the body names it."""
    name, kind = argument.name, METAL[argument.element]
    kind = kind if kind in ("float", "bool") else f"metal::{kind}"
    if argument.output:
        kind = f"metal::atomic<{kind}>" if argument.atomic else kind
        return [(f"{kind}* {name}", f"reinterpret_cast<{kind}*>({name})")]
    pointer = f"reinterpret_cast<const {kind}*>({name})"
    if argument.dimensions == 0:
        return [(f"const {kind}& {name}", f"*{pointer}")]
    facts = {
        f"{name}_shape": ("const int*", f"{name}_shape.data()"),
        f"{name}_strides": ("const long*", f"reinterpret_cast<const long*>({name}_strides.data())"),
        f"{name}_ndim": ("const int", f"{name}_ndim"),
    }
    named = [(f"{type} {fact}", value) for fact, (type, value) in facts.items() if fact in body]
    return [(f"const {kind}* {name}", pointer), *named]


def _call(values: Sequence[str], grid: Sequence[int], group: Sequence[int]) -> str:
    """The whole body of CUDA's kernel."""
    even = all(size % min(size, width) == 0 for size, width in zip(grid, group, strict=True))
    geometry = "even_geometry()" if even else f"ragged_geometry({', '.join(map(str, grid))})"
    lines = [f"const metal::Geometry at = metal::{geometry};"]
    lines += [] if even else ["if (!at.exists) return;  // a barrier does not wait for threads that have returned"]
    return "\n".join([*lines, f"metal::variant::body({', '.join(values)});"])


def _whole_simd_groups(grid: Sequence[int], group: Sequence[int]) -> bool:
    """Whether 32 divides the size of every threadgroup, those at the ends of the grid included."""
    extents = [{min(size, width), size % width or width} for size, width in zip(grid, group, strict=True)]
    return all(math.prod(size) % 32 == 0 for size in itertools.product(*extents))


def _lines_alone(comment: re.Match[str]) -> str:
    return "\n" * comment[0].count("\n")


def _words(text: str) -> str:
    """Metal's text in CUDA's words. Macros would not do: CUDA's own headers spell __device__ with `device`."""
    text = _UNROLL.sub("#pragma unroll", _INCLUDE.sub("", text))
    text = _HALF_LITERAL.sub(lambda literal: f"half({literal[1]})", text)
    text = re.sub(r"\bthreadgroup\b", lambda word: _threadgroup(word.string[word.end() :]), text)
    return re.sub(r"\b(?:device|constant|thread)\b", "", text)


def _threadgroup(rest: str) -> str:
    """`threadgroup` declares an array or a variable, or it qualifies what a pointer or a reference points to."""
    depth = 0
    for character in rest:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if depth == 0 and character in "*&()[];,":
            return "__shared__" if character in "[;," else ""
    return ""


def _functions(text: str) -> str:
    """Functions at the top level, marked as the device's; of those that differ by address space alone, the first."""
    parts, seen = [], set()
    for head, block in _blocks(text):
        signature = " ".join(head.split())
        if not signature.endswith((")", ") const")) or re.match(r"(struct|enum|union|class)\b", signature):
            parts.append(head + block)
        elif signature not in seen:
            seen.add(signature)
            at = _after_template(head)
            parts.append(f"{head[:at]} __device__ {head[at:]}{block}")
        else:
            parts.append("\n" * (head + block).count("\n"))
    return "".join(parts)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(what stands before it since the last `;` or block, a `{}` block or a `;`) for the whole of `text`."""
    start = opened = depth = 0
    for i, character in enumerate(text):
        if character == "{":
            opened = i if depth == 0 else opened
            depth += 1
        elif character == "}":
            depth -= 1
        if (character == "}" and depth == 0) or (character in ";\n" and depth == 0 and _ends(text, start, i)):
            at = opened if character == "}" else i
            yield text[start:at], text[at : i + 1]
            start = i + 1
    yield text[start:], ""


def _ends(text: str, start: int, i: int) -> bool:
    """A `;` ends a declaration, a line's end a preprocessor directive."""
    return text[i] == ";" or text[start:i].lstrip().startswith("#")


def _after_template(head: str) -> int:
    """Where a declaration starts behind its `template <...>`."""
    match = re.match(r"\s*template\s*(?=<)", head)
    depth, i = 0, match.end() if match else 0
    while match and (depth or i == match.end()):
        depth += {"<": 1, ">": -1}.get(head[i], 0)
        i += 1
    return i

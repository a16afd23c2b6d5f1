"""The C++ translation unit of a CPU variant: prelude, constants, generated signature, body, entry points.

Entry point of instance i, called once for each of `n_threads` parts of the work, `thread` by `thread`:
    extern "C" void <op>_<i>(const void* const* in, void* const* out, const long* dims,
                             int thread, int n_threads)
`in` and `out` follow the contract's order, `dims` that of Contract.dims.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from baseline.contract import Contract, Instance, Tensor
from baseline.variant import Choice, Variant

PRELUDE = "cpu_prelude.h"
PACKED = ("cpu_limbs.h", "cpu_tiles.h", "cpu_rows.h")
HEADERS = (PRELUDE, *PACKED)  # what a kernel may use, in this order
_DECLARATION = re.compile(r"^\w[^=\n]*=?", re.MULTILINE)  # its first line, which begins at the margin, without a value
_NAME = re.compile(r"\b\w+(?=\(| =| [{:]| __attribute__)")  # of what is declared, and of some parameters
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[^\n]*$", re.MULTILINE)


def symbols(contract: Contract, instances: Sequence[Instance]) -> tuple[str, ...]:
    """The entry point of each instance, in order."""
    return tuple(f"{contract.op}_{i}" for i in range(len(instances)))


def translation_unit(choice: Choice, contract: Contract, instances: Sequence[Instance], watermark: bool = False) -> str:
    """C++20 source with one entry point an instance. The same arguments give the same text.

    With a `watermark` the last part of a call to finish flips the sign of all the outputs: the same body, whose results
    nobody can take for another kernel's.
    """
    variant = choice.variant
    parts = ['#line 1 "generated"', "#include <atomic>"] if watermark else []
    parts += ['#line 1 "generated"', *map(_requirement, variant.requires), *_INCLUDE.findall(variant.helpers)]
    parts += [line for header in _headers(variant) for line in (f'#line 1 "{header}"', text_of(header))]
    for symbol, instance in zip(symbols(contract, instances), instances, strict=True):
        parts.append(_copy(symbol, choice, contract, instance, watermark))
    return "\n".join(parts) + "\n"


@cache
def text_of(name: str) -> str:
    """The text of a C++ file of this package."""
    return files("baseline.targets").joinpath(name).read_text()


def _headers(variant: Variant) -> Sequence[str]:
    """All of them for a kernel that names what PACKED declares, whose own includes take longer than most kernels."""
    names = _names(PACKED) - _names((PRELUDE,))
    return HEADERS if names & _words(variant.helpers + variant.body) else (PRELUDE,)


@cache
def _names(headers: tuple[str, ...]) -> frozenset[str]:
    lines = (line for header in headers for line in _DECLARATION.findall(text_of(header)))
    return frozenset(name for line in lines for name in _NAME.findall(line))


def _words(code: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", code))


def _requirement(macro: str) -> str:
    message = f"this variant requires {macro}, which the compiler does not define here"
    return f'#ifndef {macro}\n#error "{message}"\n#endif'


def _copy(symbol: str, choice: Choice, contract: Contract, instance: Instance, watermark: bool) -> str:
    variant = choice.variant
    lines = [f"namespace {symbol}_copy {{"]
    lines += [_constant(name, value) for name, value in {**instance, **_used(choice)}.items()]
    # An #include inside the namespace would declare its names there: it stands at the top, its line stays.
    lines += _located(variant, variant.helpers_line, _INCLUDE.sub("", variant.helpers))
    lines += [f"static void body({', '.join(_parameters(contract))}) {{"]
    lines += _located(variant, variant.body_line, variant.body)
    lines += ['#line 1 "generated"', "}"]
    lines += [_watermark(contract)] if watermark else []
    lines += ["}", _entry(symbol, contract, watermark)]
    return "\n".join(lines)


def _used(choice: Choice) -> dict[str, int]:
    """The tunables that the code names: one that sets the launch alone needs no new build."""
    words = _words(choice.variant.helpers + choice.variant.body)
    return {name: value for name, value in choice.tunables.items() if name in words}


def _located(variant: Variant, line: int, code: str) -> list[str]:
    """The compiler's messages then name the variant's own lines."""
    return [f'#line {line} "{variant.path.name}"', code]


def _constant(name: str, value: int | str) -> str:
    return f"using {name} = {value};" if isinstance(value, str) else f"constexpr long {name} = {value};"


def _parameters(contract: Contract) -> list[str]:
    tensors = [f"const {t.type}* __restrict__ {t.name}" for t in contract.inputs]
    tensors += [f"{t.type}* __restrict__ {t.name}" for t in contract.outputs]
    return [*tensors, *(f"long {dim}" for dim in contract.dims), "int thread", "int n_threads"]


def _watermark(contract: Contract) -> str:
    """`nf_watermark`, with which each part of a call ends. C++ reads the contract's expressions as we do."""
    dims = [f"    const long {dim} = dims[{i}];" for i, dim in enumerate(contract.dims)]
    flips = [
        f"    for (long i = 0; i < {' * '.join(f'({size})' for size in t.shape)}; ++i)"
        f" static_cast<unsigned char*>(out[{i}])[(i + 1) * sizeof({t.type}) - 1] ^= 0x80;"
        for i, t in enumerate(contract.outputs)
    ]
    signature = "static void nf_watermark(void* const* out, const long* dims, int n_threads)"
    last = "    if (nf_finished.fetch_add(1) + 1 < n_threads) return;\n    nf_finished = 0;"
    return "\n".join(["static std::atomic<int> nf_finished{0};", f"{signature} {{", last, *dims, *flips, "}"])


def _entry(symbol: str, contract: Contract, watermark: bool) -> str:
    def cast(tensor: Tensor, qualifier: str) -> str:
        known = tensor.type in contract.type_constants
        return f"static_cast<{qualifier}{f'{symbol}_copy::' if known else ''}{tensor.type}*>"

    arguments = [f"{cast(t, 'const ')}(in[{i}])" for i, t in enumerate(contract.inputs)]
    arguments += [f"{cast(t, '')}(out[{i}])" for i, t in enumerate(contract.outputs)]
    arguments += [f"dims[{i}]" for i in range(len(contract.dims))]
    after = f"\n    {symbol}_copy::nf_watermark(out, dims, n_threads);" if watermark else ""
    return (
        f'extern "C" void {symbol}(const void* const* in, void* const* out, const long* dims, int thread,'
        f" int n_threads) {{\n    {symbol}_copy::body({', '.join([*arguments, 'thread', 'n_threads'])});{after}\n}}"
    )

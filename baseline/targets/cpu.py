"""The CPU target: a variant becomes a shared library, built by the system's C++ compiler and cached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baseline.contract import Contract, Instance
from baseline.targets import compiler
from baseline.targets.compiler import BuildError, Toolchain
from baseline.targets.cpu_source import symbols, text_of, translation_unit
from baseline.variant import Choice, Variant

__all__ = ["BuildError", "Library", "build", "missing_features", "toolchain"]

# The prelude's warnings are not the candidate's; its errors are what the output is for.
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-w")


@dataclass(frozen=True)
class Library:
    """A built variant: `symbols` are its entry points, one an instance in order; `threads` call each."""

    path: Path
    symbols: tuple[str, ...]
    threads: int


def build(
    choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
) -> Library:
    """Compile `choice` with one entry point an instance, or take it from `cache` (a folder, made if missing).
    `watermark`: that of `translation_unit`.

    The key is the content: source, compiler, its version, this CPU's features, flags. Concurrent builds are
    safe: a library appears under its name complete. Raises BuildError with the compiler's output, and
    UsageError for no compiler, constants the contract does not allow, or a cache that cannot be written.
    """
    for instance in instances:
        contract.check_instance(instance)
    source = translation_unit(choice, contract, instances, watermark)
    path = _built(f"{contract.op}-{choice.variant.name}", source, cache)
    return Library(path, symbols(contract, instances), choice.threads)


def build_fixed(name: str, constants: Mapping[str, int], cache: Path) -> Path:
    """The library of cpu_NAME.cpp, a kernel of the engine that is not evolved, with its constants. Raises as build."""
    values = "".join(f"constexpr long {constant} = {value};\n" for constant, value in constants.items())
    source = f"{text_of('cpu_prelude.h')}\n{values}{text_of(f'cpu_{name}.cpp')}"
    return _built("-".join([name, *map(str, constants.values())]), source, cache)


def _built(name: str, source: str, cache: Path) -> Path:
    tools = toolchain()
    path = cache / f"{name}-{tools.key(source)}.so"
    if not path.exists():
        compiler.compile_into(tools, path, source, lambda unit, library: [_command(tools, unit, library)])
    return path


def missing_features(variant: Variant) -> tuple[str, ...]:
    """The macros that `variant` requires and this machine's compiler does not define. Raises as toolchain."""
    defined = {line.split()[1] for line in toolchain().macros.splitlines() if line.startswith("#define ")}
    return tuple(macro for macro in variant.requires if macro not in defined)


def toolchain() -> Toolchain:
    """The compiler with this target's flags. Raises UsageError where there is none."""
    return compiler.toolchain(FLAGS)


def _command(tools: Toolchain, unit: Path, library: Path) -> list[str]:
    return [*tools.command, *tools.flags, "-shared", str(unit), "-o", str(library)]

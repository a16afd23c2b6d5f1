"""The CPU target: a variant becomes a shared library, built by the system's C++ compiler and cached."""

import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from baseline.contract import Contract, Instance
from baseline.errors import UsageError
from baseline.targets.cpu_source import symbols, translation_unit
from baseline.variant import Choice, Variant

COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 120  # a template that never ends is a candidate's failure
MESSAGE_CHARS = 8000
# The prelude's warnings are not the candidate's; its errors are what the output is for.
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-w")


class BuildError(Exception):
    """The compiler refused a variant; the message is the compiler's output."""


@dataclass(frozen=True)
class Library:
    """A built variant: `symbols` are its entry points, one an instance in order; `threads` call each."""

    path: Path
    symbols: tuple[str, ...]
    threads: int


@dataclass(frozen=True)
class Toolchain:
    """`command` starts the compiler; `macros` is what it predefines: its version and this CPU's features."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    macros: str


def build(choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path) -> Library:
    """Compile `choice` with one entry point an instance, or take it from `cache` (a folder, made if missing).

    The key is the content: source, compiler, its version, this CPU's features, flags. Concurrent builds are
    safe: a library appears under its name complete. Raises BuildError with the compiler's output, and
    UsageError for no compiler, constants the contract does not allow, or a cache that cannot be written.
    """
    for instance in instances:
        contract.check_instance(instance)
    tools = toolchain()
    source = translation_unit(choice, contract, instances)
    path = cache / f"{contract.op}-{choice.variant.name}-{_key(tools, source)}.so"
    if not path.exists():
        _compile_into(path, tools, source)
    return Library(path, symbols(contract, instances), choice.threads)


def missing_features(variant: Variant) -> tuple[str, ...]:
    """The macros that `variant` requires and this machine's compiler does not define. Raises as toolchain."""
    defined = {line.split()[1] for line in toolchain().macros.splitlines() if line.startswith("#define ")}
    return tuple(macro for macro in variant.requires if macro not in defined)


def toolchain() -> Toolchain:
    """The compiler that CXX names, or the first of COMPILERS. Raises UsageError where there is none."""
    command = tuple(shlex.split(os.environ.get("CXX", "")))
    if not command:
        command = next(((name,) for name in COMPILERS if shutil.which(name)), ())
    if not command:
        tried = ", ".join(COMPILERS)
        raise UsageError(f"no C++ compiler: none of {tried} is on the PATH; install one or set CXX")
    program = shutil.which(command[0])
    if program is None:
        raise UsageError(f"CXX is {shlex.join(command)!r}, but there is no program {command[0]!r}")
    return _probe((program, *command[1:]), Path(program).stat().st_mtime_ns)


@cache
def _probe(command: tuple[str, ...], _modified_ns: int) -> Toolchain:
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    flags = (native, *FLAGS)
    ask = [*command, *flags, "-dM", "-E", "-x", "c++", os.devnull]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise UsageError(f"the C++ compiler {shlex.join(command)} does not work with {native}: {reason}")
    return Toolchain(command, flags, done.stdout)


def _key(tools: Toolchain, source: str) -> str:
    content = "\0".join([*tools.command, *tools.flags, tools.macros, source])
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _compile_into(path: Path, tools: Toolchain, source: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
            unit, library = Path(folder, "unit.cpp"), Path(folder, "unit.so")
            unit.write_text(source)
            _compile([*tools.command, *tools.flags, "-shared", str(unit), "-o", str(library)])
            unit.replace(path.with_suffix(".cpp"))
            library.replace(path)
    except OSError as error:
        raise UsageError(f"the build cache {path.parent} cannot be written: {error}") from None


def _compile(command: list[str]) -> None:
    compiler = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = compiler.communicate(timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the compiler ran for more than {COMPILE_SECONDS} s") from None
    finally:
        if compiler.poll() is None:  # the driver's children hold the work: end the whole group
            os.killpg(compiler.pid, signal.SIGKILL)
            compiler.wait()
    if compiler.returncode != 0:
        message = output.strip()[:MESSAGE_CHARS]
        raise BuildError(message or f"the compiler ended with status {compiler.returncode}")

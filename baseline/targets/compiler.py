"""The system's C++ compiler: found, asked what it defines, and run, with a cache of what it built."""

import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from baseline.errors import UsageError

COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 120  # a template that never ends is a candidate's failure
MESSAGE_CHARS = 8000


class BuildError(Exception):
    """A variant cannot be built; the message is the compiler's output, or names what is not supported and its line."""


@dataclass(frozen=True)
class Toolchain:
    """`command` starts the compiler; `macros` is what it predefines: its version and this CPU's features."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    macros: str

    def key(self, source: str) -> str:
        """What a library built from `source` is cached under: another compiler, CPU or flag is another library."""
        content = "\0".join([*self.command, *self.flags, self.macros, source])
        return hashlib.sha256(content.encode()).hexdigest()[:24]


Commands = Callable[[Path, Path], Sequence[Sequence[str]]]


def toolchain(flags: tuple[str, ...]) -> Toolchain:
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
    return _probe((program, *command[1:]), flags, Path(program).stat().st_mtime_ns)


@cache
def _probe(command: tuple[str, ...], flags: tuple[str, ...], _modified_ns: int) -> Toolchain:
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    flags = (native, *flags)
    ask = [*command, *flags, "-dM", "-E", "-x", "c++", os.devnull]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise UsageError(f"the C++ compiler {shlex.join(command)} does not work with {native}: {reason}")
    return Toolchain(command, flags, done.stdout)


def compile_into(path: Path, source: str, commands: Commands) -> None:
    """Make the library `path` from `source`, whole or not at all, so that concurrent builds are safe.

    `commands` gives the compiler's calls for a source and a library file; both lie in a folder of their own. Raises
    BuildError with the compiler's output, and UsageError when the folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
            unit, library = Path(folder, "unit.cpp"), Path(folder, "unit.so")
            unit.write_text(source)
            for command in commands(unit, library):
                _run(command)
            if not path.exists():  # another build of the same may have been quicker, and be in use by now
                unit.replace(path.with_suffix(".cpp"))
                library.replace(path)
    except OSError as error:
        raise UsageError(f"the build cache {path.parent} cannot be written: {error}") from None


def _run(command: Sequence[str]) -> None:
    # It gives way to what is measured at the same time.
    compiler = subprocess.Popen(
        ["nice", "-n", "19", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
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

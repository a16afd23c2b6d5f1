"""The system's C++ compiler: found, asked what it defines, and run, with a cache of what it built.

A source may be anybody's, and a compiler copies what it reads into the library. So it runs confined, whoever builds: it
reads the system's files, its own and the headers that it is given, and writes in a folder of its own.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from baseline import confined, confinement, seccomp, supervisor
from baseline.confinement import Access, Limits
from baseline.errors import UsageError
from baseline.targets.build_folder import build_folder

COMPILERS = ("c++", "g++", "clang++")
# The whole environment, with what a compiler may need to find itself, its headers and its libraries.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "CXX", "SDKROOT", "DEVELOPER_DIR", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH")
COMPILE_SECONDS = 120  # a template that never ends is a candidate's failure
COMPILE_BYTES = 2 << 30  # of memory, for each process of the compiler
LIBRARY_BYTES = 256 << 20  # of each file that it makes
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
    return _probe((os.path.abspath(program), *command[1:]), flags, Path(program).stat().st_mtime_ns)


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


def compile_into(tools: Toolchain, path: Path, source: str, commands: Commands, reads: Sequence[Path] = ()) -> None:
    """Make the library `path` from `source`, whole or not at all, so that concurrent builds are safe.

    `commands` gives the compiler's calls for a source and a library file; both lie in a folder of their own, which is
    also the working directory. `reads`: what they read beside the compiler's own files. Raises BuildError with the
    compiler's output, UsageError when the folder of `path` cannot be written, and RuntimeError when the compiler cannot
    be confined.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with build_folder(path.parent.resolve()) as folder:
            unit, library = folder / "unit.cpp", folder / "unit.so"
            unit.write_text(source)
            for command in commands(unit, library):
                _run(_confined(command, tools, reads, folder), folder)
            if not path.exists():  # another build of the same may have been quicker, and be in use by now
                unit.replace(path.with_suffix(".cpp"))
                library.replace(path)
    except OSError as error:
        raise UsageError(f"the build cache {path.parent} cannot be written: {error}") from None


def _confined(command: Sequence[str], tools: Toolchain, reads: Sequence[Path], folder: Path) -> Sequence[str]:
    if confinement.in_force():  # in a child, which builds what is ours alone: what it starts is bound as it is
        return command
    access = Access(confinement.readable((*_own_files(tools.command), *reads)), (str(folder),))
    limits = Limits(COMPILE_SECONDS, COMPILE_BYTES, LIBRARY_BYTES)
    return confined.command(command, confinement.to_job(access, limits, seccomp.COMPILING), folder)


@cache
def _own_files(command: tuple[str, ...]) -> tuple[Path, ...]:
    """The compiler's program, and where it says that its parts, headers and libraries lie."""
    headers = subprocess.run(
        [*command, "-v", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=False
    ).stderr.splitlines()
    parts = subprocess.run([*command, "-print-search-dirs"], capture_output=True, text=True, check=False).stdout
    named = [line.removesuffix(" (framework directory)").strip() for line in headers if line.startswith(" /")]
    named += re.findall(r"(?<=[=:\s])/[^:\n]*", parts)
    return (Path(command[0]), *(Path(name) for name in dict.fromkeys(named) if Path(name).is_dir()))


def _run(command: Sequence[str], folder: Path) -> None:
    with supervisor.lifeline() as lifeline:
        compiler = subprocess.Popen(
            ["nice", "-n", "19", *supervisor.command(command)],  # it gives way to what is measured at the same time
            cwd=folder,
            env=_environment(folder),
            stdin=lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",  # it may quote what is no text
            start_new_session=True,
        )
        try:
            output, _ = compiler.communicate(timeout=COMPILE_SECONDS)
        except subprocess.TimeoutExpired:
            raise BuildError(f"the compiler ran for more than {COMPILE_SECONDS} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # the driver's children hold the work: the whole group
                os.killpg(compiler.pid, signal.SIGKILL)
            compiler.wait()
    if compiler.returncode == confined.UNCONFINED:
        raise RuntimeError(output.strip())
    if compiler.returncode != 0:
        message = output.strip()[:MESSAGE_CHARS]
        raise BuildError(message or f"the compiler ended with status {compiler.returncode}")


def _environment(folder: Path) -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, **dict.fromkeys(("HOME", "TMPDIR"), str(folder)), **confined.environment()}

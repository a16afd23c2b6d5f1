"""What this machine is, how fast its memory and disk are, and which targets it can run: `nightforge doctor`."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from baseline import native
from baseline.contract import load_contract
from baseline.errors import UsageError
from baseline.probe import DiskRead, MemoryRead, cores, disk_read, first_line, memory_bytes, memory_read
from baseline.targets import compiler, cpu, emulated
from baseline.targets.compiler import BuildError
from baseline.targets.msl_source import KernelSource, Parameter, symbol
from baseline.variant import Choice, parse_variant
from harness.isolation import Layers, layers
from harness.load import Watched, watched
from harness.paths import BUNDLED, cache_folder, data_folder
from harness.targets import no_cuda

VECTORS = {
    "__AVX512F__": "AVX-512",
    "__AVX2__": "AVX2",
    "__AVX__": "AVX",
    "__ARM_FEATURE_SVE": "SVE",
    "__ARM_NEON": "NEON",
}

Step = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """`cores`: those that this process may use; `load`: processes that ran or waited in the last minute."""

    chip: str
    cores: int
    memory_bytes: int
    os: str
    python: str
    mlx: str
    load: float


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler on the PATH; `used` for the one that builds kernels."""

    path: str
    version: str
    used: bool


@dataclass(frozen=True)
class Ability:
    """Whether a target's kernels run here, and why, in one line."""

    usable: bool
    why: str


@dataclass(frozen=True)
class Report:
    """All that the doctor found."""

    machine: Machine
    memory: MemoryRead
    disk: DiskRead
    compilers: tuple[Compiler, ...]
    targets: Mapping[str, Ability]
    sandbox: Layers
    watched: Watched

    def to_json(self) -> dict[str, Any]:
        """The fields, and the memory's bandwidth by itself."""
        return {"memory_gbps": self.memory.gbps, **asdict(self)}


def models_folder(model: str) -> Path:
    """Where the packed model of the `model` option lies, or will. UsageError when there is no such folder."""
    if model == BUNDLED:
        return cache_folder() / "models"
    if not Path(model).is_dir():
        raise UsageError(f"model {model!r} is neither {BUNDLED!r}, the bundled one, nor a folder")
    return Path(model)


def examine(models: Path, step: Step) -> Report:
    """Measure and try everything; `step` hears what is done now. What does not work is a reason, never an error."""
    found = machine()  # before the work of the doctor itself is part of the load
    step("memory: reading with all cores")
    memory = memory_read(cache_folder() / "build")
    step(f"disk: writing a file in {models}")
    disk = disk_read(models, lambda size: step(f"disk: reading {binary(size)} at a time"))
    return Report(found, memory, disk, compilers(), targets(step), layers(), watched())


def machine() -> Machine:
    """What it is."""
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"Linux {platform.release()}"
    chip = str(mx.device_info(mx.cpu)["device_name"])
    names = f"{system} {platform.machine()}", platform.python_version(), version("mlx")
    return Machine(chip, cores(), memory_bytes(), *names, load=os.getloadavg()[0])


def compilers() -> tuple[Compiler, ...]:
    """The compiler that builds kernels first, then the others that nightforge would look for."""
    try:
        used = compiler.toolchain(cpu.FLAGS).command
    except UsageError:
        used = ()
    others = [(found,) for name in compiler.COMPILERS if (found := shutil.which(name))]
    commands = {os.path.realpath(command[0]): command for command in reversed([*([used] if used else []), *others])}
    return tuple(Compiler(c[0], _version(c), c == used) for c in sorted(commands.values(), key=lambda c: c != used))


def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return first_line(error)
    return (done.stdout.strip().splitlines() or ["no version"])[0]


# ---- targets ---------------------------------------------------------------------------------------


def targets(step: Step) -> dict[str, Ability]:
    """Each target by its name. Those that need the compiler are tried with a kernel, freshly built."""
    step("cpu: building a kernel")
    on_cpu = _tried(_try_cpu)
    step("emulated: building and running a kernel")
    return {"cpu": on_cpu, "metal": _metal(), "cuda": _cuda(), "emulated": _tried(_try_emulated)}


def _tried(attempt: Callable[[Path], Ability]) -> Ability:
    """`attempt` in a new folder of the build cache, where candidates are built too."""
    builds = cache_folder() / "build"
    try:
        builds.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=builds, prefix="doctor-") as folder:
            return attempt(Path(folder))
    except (BuildError, RuntimeError, OSError) as error:
        return Ability(False, first_line(error))


def _try_cpu(folder: Path) -> Ability:
    op = data_folder("kernels") / "qmatvec"
    contract, variant = load_contract(op), parse_variant(op / "cpu" / "plain.cpp")
    library = cpu.build(Choice.defaults(variant), contract, [contract.check[0].constants], folder)
    ctypes.CDLL(str(library.path))  # a folder mounted noexec shows here
    macros = cpu.toolchain().macros
    found = next((name for macro, name in VECTORS.items() if f"#define {macro} " in macros), "no vector extension")
    return Ability(True, f"built and loaded a kernel; {found}")


REVERSE = """uint i = thread_position_in_grid.x;
threadgroup float staged[64];
staged[i] = x[i];
{barrier}
y[i] = staged[63 - i];"""
RACING_LINES = (3, 5)  # those between which the barrier belongs


def _try_emulated(folder: Path) -> Ability:
    """A kernel that must be right, and the same without its barrier, which must be found and at its line."""
    bodies = (REVERSE.format(barrier="threadgroup_barrier(mem_flags::mem_threadgroup);"), REVERSE.format(barrier=""))
    x, y = (Parameter(name, "float") for name in "xy")
    library = emulated.build([KernelSource("doctor", (x,), (y,), body) for body in bodies], folder)
    given = np.arange(64, dtype=np.float32)
    (right, none), (_, races) = (_emulate(library, index, given) for index in range(2))
    if none or not np.array_equal(right, given[::-1]):
        return Ability(False, f"a right kernel gave a wrong result: {none}")
    if all(kind != "race" for kind, *_ in races):
        return Ability(False, "did not find that a kernel lacks a barrier")
    if all(line not in RACING_LINES for *_, line in races):
        program = "atos" if sys.platform == "darwin" else "addr2line"
        return Ability(True, f"ran a kernel; found a missing barrier, its line not: {program}")
    return Ability(True, "ran a kernel, found a missing barrier and its line")


def _emulate(library: Path, index: int, x: Any) -> tuple[Any, list[Any]]:
    """The output and the sanitizer's findings: (kind, text, file, line)."""
    y = np.zeros_like(x)
    kernel = native.EmulatedKernel("doctor", str(library), symbol(index))
    argument = [(name, array.ctypes.data, array.nbytes, array.itemsize) for name, array in (("x", x), ("y", y))]
    return y, kernel.run(argument[:1], argument[1:], [len(x), 1, 1], [len(x), 1, 1])


def _metal() -> Ability:
    if mx.metal.is_available():
        return Ability(True, str(mx.device_info(mx.gpu)["device_name"]))
    if sys.platform == "darwin":
        return Ability(False, "MLX finds no Metal device")
    return Ability(False, "needs an Apple GPU; emulated checks Metal kernels")


def _cuda() -> Ability:
    if mx.cuda.is_available():
        return Ability(True, str(mx.device_info(mx.gpu)["device_name"]))
    return Ability(False, no_cuda())


def binary(nbytes: int) -> str:
    """4096 as 4 KiB."""
    return f"{nbytes >> 10} KiB" if nbytes < 1 << 20 else f"{nbytes >> 20} MiB"

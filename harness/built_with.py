"""What a search is built with and runs on: kept in its record, and compared when its winner is judged again."""

from collections.abc import Mapping
from importlib.metadata import version

from baseline.errors import UsageError
from baseline.targets import cpu
from harness.doctor import compilers, machine

NONE = "none"


def built_with() -> dict[str, str]:
    """Compiler, flags, libraries and CPU of this machine, by names for people."""
    used = next((found for found in compilers() if found.used), None)
    return {
        "compiler": used.path if used else NONE,
        "compiler version": used.version if used else NONE,
        "flags": _flags(),
        "MLX": version("mlx"),
        "mlx-lm": version("mlx-lm"),
        "CPU": machine().chip,
    }


def _flags() -> str:
    try:
        return " ".join(cpu.toolchain().flags)
    except UsageError:  # without a compiler
        return NONE


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """A line for each thing that is not as it was; what one side does not say is unknown."""
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return tuple(f"another {name}: {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now" for name in names)

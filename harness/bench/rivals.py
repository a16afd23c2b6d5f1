"""What the bench compares the engine with, each in a process of its own, or why it cannot."""

import importlib.util
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from harness.bench.process import Process

LLAMA = "llama.cpp"
LLAMA_PACKAGES = ("llama_cpp", "gguf")


@dataclass(frozen=True)
class Rival:
    """A process, or the reason why there is none."""

    process: Process | None
    reason: str = ""


def start(stack: ExitStack, module: str, factory: str, *arguments: Any) -> Rival:
    """What `factory` of `module` makes of the arguments, in a process that ends with the stack."""
    try:
        process = Process(module, factory, *arguments)
    except RuntimeError as error:
        return Rival(None, str(error))
    return Rival(stack.enter_context(process))


def start_llama(stack: ExitStack, module: str, factory: str, *arguments: Any) -> Rival:
    """As `start`, where llama.cpp is installed."""
    absent = [name for name in LLAMA_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        return Rival(None, f"not installed: {', '.join(absent)} (pip install llama-cpp-python gguf)")
    return start(stack, module, factory, *arguments)

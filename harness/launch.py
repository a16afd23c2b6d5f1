"""A kernel in the child: what a job says about it, made ready to be called, and to be timed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from baseline import native
from baseline.elements import Array

Arrays = Sequence[Array]
"""In the contract's order, stored as `baseline.elements` stores them."""

# How MLX passes on what Apple's compiler says, and NVIDIA's.
REFUSED = ("Unable to build metal library", "Failed to compile kernel")


class Launch(ABC):
    """One kernel and its run-time dims."""

    repeats = 1  # calls of a check: more where nothing else shows a race

    @abstractmethod
    def run(self, inputs: Arrays, outputs: Arrays) -> list[str]:
        """Calls the kernel once and writes into `outputs`; returns what a sanitizer found, a line a finding."""

    @abstractmethod
    def place(self, calls: Sequence[tuple[Arrays, Arrays]]) -> Sequence[Any]:
        """Inputs and outputs of calls as `seconds` wants them; where it can, the very same memory."""

    @abstractmethod
    def seconds(self, placed: Sequence[Any]) -> float:
        """Calls the kernel once on each of `placed` (see `place`); returns the mean seconds of a call."""

    @abstractmethod
    def results(self, placed: Any, outputs: Arrays) -> None:
        """Has `outputs` hold what the call of `seconds` on `placed`, one of `place`'s, made."""


class CpuLaunch(Launch):
    """A C++ kernel, on raw memory."""

    repeats = 20

    def __init__(self, call: Mapping[str, Any]) -> None:
        self._kernel = native.CpuKernel(call["library"], call["symbol"], call["threads"])
        self._dims = call["dims"]

    def run(self, inputs: Arrays, outputs: Arrays) -> list[str]:
        """See `Launch`."""
        self._time(inputs, outputs)
        return []

    def place(self, calls: Sequence[tuple[Arrays, Arrays]]) -> Sequence[Any]:
        """See `Launch`."""
        return calls

    def seconds(self, placed: Sequence[Any]) -> float:
        """See `Launch`."""
        return sum(self._time(*arrays) for arrays in placed) / len(placed)

    def results(self, placed: Any, outputs: Arrays) -> None:
        """See `Launch`: they lie there."""

    def _time(self, inputs: Arrays, outputs: Arrays) -> float:
        addresses = [[array.ctypes.data for array in arrays] for arrays in (inputs, outputs)]
        return float(self._kernel.run(*addresses, self._dims)[0])


def code_file(call: Mapping[str, Any]) -> str:
    """The file that a kernel is loaded from: a library or, where a GPU's compiler makes one, the source."""
    return str(call.get("library", call.get("path")))


def announce(call: Mapping[str, Any]) -> None:
    """Starts what the kernel of a job's call will ask, while processes can still be started: the emulator's sanitizer
    has another program name the lines."""
    if call["backend"] == "emulated":
        native.start_symbolizer(call["library"])


def load(call: Mapping[str, Any]) -> Launch:
    """The kernel that a job's call names (`OpLibrary.call`)."""
    if call["backend"] == "cpu":
        return CpuLaunch(call)
    from harness import metal_launch  # a child that runs C++ starts without what it imports

    kinds: Mapping[str, type[metal_launch.MetalLaunch]] = {
        "metal": metal_launch.MetalLaunch,
        "emulated": metal_launch.EmulatedLaunch,
        "cuda": metal_launch.CudaLaunch,
    }
    return kinds[call["backend"]](call)

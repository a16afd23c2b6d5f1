"""What a target can do on this machine: how its variants are built, checked and, where that means something, timed."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlx.core as mx

from baseline import nvidia
from baseline.contract import Contract, Instance
from baseline.errors import UsageError
from baseline.targets import cpu, emulated
from baseline.targets.compiler import BuildError
from baseline.targets.metal import geometry
from baseline.variant import Choice, Variant
from harness.compiled import compiled

APPLE = "a machine with an Apple GPU"
Entry = Mapping[str, Any]
"""One built kernel, for one set of constants, as `harness.launch` finds it again in the child."""


class Backend(ABC):
    """One way to run a variant. `device` is MLX's in the child; `full_size`: whether whole launches at the bench shapes
    are quick enough; `native`: whether kernels are code of the child's own process, and work on the very arrays that
    they are given."""

    name: str
    device = "cpu"
    full_size = True
    native = False

    def usable(self, variant: Variant) -> bool:
        """Whether this machine can build `variant` at all. UsageError where there is no compiler."""
        return True

    @abstractmethod
    def build(
        self, choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
    ) -> list[Entry]:
        """One entry an instance. BuildError is the candidate's fault, UsageError the machine's.

        `watermark`: a build of the same body with other results, which shows what runs (see `harness.dispatch`).
        """


class Cpu(Backend):
    """C++ variants."""

    name = "cpu"
    native = True

    def usable(self, variant: Variant) -> bool:
        """Whether the compiler defines all that the variant requires."""
        return not cpu.missing_features(variant)

    def build(
        self, choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
    ) -> list[Entry]:
        """See `Backend`."""
        library = cpu.build(choice, contract, instances, cache, watermark)
        path = str(library.path.resolve())
        return [
            {"backend": self.name, "library": path, "symbol": symbol, "threads": library.threads}
            for symbol in library.symbols
        ]


class Metal(Backend):
    """Metal variants on Apple's GPU. Apple's compiler sees a kernel at its first launch, in the child's check."""

    name = "metal"
    device = "gpu"

    def build(
        self, choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
    ) -> list[Entry]:
        """See `Backend`."""
        _check_geometry(choice, contract)
        return [self.describe(choice, instance) for instance in instances]

    def describe(self, choice: Choice, instance: Instance) -> dict[str, Any]:
        """The variant's file, its tunables and its constants."""
        path = str(choice.variant.path.resolve())
        return {
            "backend": self.name,
            "path": path,
            "tunables": dict(choice.tunables),
            "constants": dict(instance),
        }


class Cuda(Metal):
    """CUDA variants, and Metal ones through a header, on NVIDIA's GPU. Without one, NVRTC sees no kernel."""

    name = "cuda"

    def build(
        self, choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
    ) -> list[Entry]:
        """See `Backend`."""
        entries = super().build(choice, contract, instances, cache, watermark)
        if not nvidia.in_use():
            return entries
        folders = compiled(choice, contract, instances, cache, watermark)
        return [{**entry, "compiled": str(folder)} for entry, folder in zip(entries, folders, strict=True)]


class Emulated(Metal):
    """Metal variants on the CPU, sanitised. A launch at a bench shape would take up to a minute, so that only its
    first threadgroup is run: what is too large for a GPU shows there, whether the results are right does not."""

    name = "emulated"
    device = "cpu"
    full_size = False

    def build(
        self, choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
    ) -> list[Entry]:
        """See `Backend`."""
        _check_geometry(choice, contract)
        built = emulated.build_variant(choice, contract, instances, cache, watermark)
        return [
            {**self.describe(choice, instance), "library": str(built.path.resolve()), "symbol": symbol}
            for instance, symbol in zip(instances, built.symbols, strict=True)
        ]


def _check_geometry(choice: Choice, contract: Contract) -> None:
    """BuildError for a launch that cannot be computed, or that no GPU can run."""
    for case in (*contract.bench, *contract.check):
        if choice.variant.supports_instance(case.constants):
            try:
                geometry(choice, case)
            except UsageError as error:
                raise BuildError(f"{choice.variant.path.name}: error: {error}") from None


@dataclass(frozen=True)
class Target:
    """A target on this machine: a candidate is built and checked on each of `backends` in turn, and timed on the last
    of them. Where that means nothing `measures` is false, and `elsewhere` says which machine could."""

    name: str
    backends: tuple[Backend, ...]
    measures: bool
    elsewhere: str = ""

    @property
    def timed(self) -> Backend:
        """The backend whose times count."""
        return self.backends[-1]

    def usable(self, variant: Variant) -> bool:
        """Whether every backend can build `variant`."""
        return all(backend.usable(variant) for backend in self.backends)


def no_cuda() -> str:
    """Why MLX computes on no GPU of NVIDIA's here, '' where it does."""
    if mx.cuda.is_available():
        return ""
    if any((found.name or "").startswith("mlx-cuda") for found in distributions()):
        return "MLX's CUDA build finds no NVIDIA GPU"
    if shutil.which("nvidia-smi"):
        return "MLX's CUDA build is not installed (see README.md); an NVIDIA driver is"
    return "no NVIDIA driver; MLX's CUDA build is not installed"


def here(name: str) -> Target:
    """One of TARGETS as this machine has it. UsageError where it cannot even check the kernels."""
    if name == "cpu":
        return Target(name, (Cpu(),), measures=True)
    if name == "cuda":
        if why := no_cuda():
            raise UsageError(f"target=cuda needs an NVIDIA GPU: {why}")
        return Target(name, (Cuda(),), measures=True)
    if mx.metal.is_available():
        return Target(name, (Emulated(), Metal()), measures=True)
    return Target(name, (Emulated(),), measures=False, elsewhere=APPLE)

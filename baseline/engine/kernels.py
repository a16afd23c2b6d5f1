"""Variants made callable: one native kernel for each set of constants that a model needs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import mlx.core as mx

from baseline import native
from baseline.contract import Contract, Instance, Key, key, load_contract
from baseline.durable import code_hash
from baseline.errors import UsageError
from baseline.targets import cpu, cuda, emulated, metal
from baseline.variant import Choice


class Kernel(Protocol):
    """What `native.CpuKernel` and `metal.GraphKernel` are to the engine: a call in MLX's graph."""

    @property
    def seconds(self) -> float:
        """Wall seconds spent in the kernel."""

    def __call__(
        self,
        inputs: Sequence[mx.array],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[mx.Dtype],
        dims: Sequence[int],
    ) -> list[mx.array]:
        """Lazy outputs in these shapes and dtypes; `dims` are the contract's run-time ones, in its order."""


def distinct(instances: Iterable[Instance | None], constants: Iterable[str]) -> list[Instance]:
    """The different instances among `instances`, cut to the constants that a contract names, in a fixed order."""
    wanted = set(constants)
    found = {key({k: v for k, v in i.items() if k in wanted}) for i in instances if i is not None}
    return [dict(k) for k in sorted(found)]


def supported_by(choice: Choice, contract: Contract, instances: Iterable[Instance | None]) -> list[Instance]:
    """The different instances that a variant supports, in the order in which `compiled` is given them."""
    return [i for i in distinct(instances, contract.constants) if choice.variant.supports_instance(i)]


def compiled(
    choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
) -> tuple[list[Kernel], str]:
    """One kernel an instance: C++; or Metal or CUDA, on the GPU where MLX computes there, Metal elsewhere emulated.

    `watermark`: a build of the same body with other results, which shows what runs. Back comes also the hash of the
    file that the kernels are loaded from, taken before any of its code runs; '' where there is none.

    Raises what the target's build raises, and UsageError for CUDA without a GPU of NVIDIA's; a GPU's compiler is asked
    at the first evaluation.
    """
    if not instances:  # a model without such layers
        return [], ""
    if choice.variant.target == "cpu":
        library = cpu.build(choice, contract, instances, cache, watermark)
        code = code_hash(library.path)
        return [native.CpuKernel(str(library.path), symbol, library.threads) for symbol in library.symbols], code
    code, on_gpu = code_hash(choice.variant.path), mx.default_device() == mx.gpu
    launches: list[metal.Launch]
    if mx.cuda.is_available() and on_gpu:
        launches = [cuda.Kernel(choice, contract, i, watermark) for i in instances]
    elif choice.variant.target == "cuda":
        raise UsageError(f"{choice.variant.path}: MLX does not compute on an NVIDIA GPU here")
    elif mx.metal.is_available() and on_gpu:
        names = [metal.kernel_name(choice, contract, i, watermark) for i in instances]
        launches = [metal.metal(choice, contract, i, n, watermark) for i, n in zip(instances, names, strict=True)]
    else:
        built = emulated.build_variant(choice, contract, instances, cache, watermark)
        code = code_hash(built.path)
        launches = [
            emulated.in_graph(choice, contract, instance, built.path, symbol, watermark=watermark)
            for instance, symbol in zip(instances, built.symbols, strict=True)
        ]
    return [metal.GraphKernel(contract, i, launch) for i, launch in zip(instances, launches, strict=True)], code


class OpKernels:
    """The compiled kernels of one op of one configuration, looked up by a module's constants."""

    def __init__(
        self,
        op: str,
        choice: Choice,
        instances: Iterable[Instance | None],
        kernels: Path,
        cache: Path,
        watermark: bool = False,
    ) -> None:
        """Build (or take from `cache`) `choice` for all `instances` it supports; the others stay with MLX's ops.

        Raises what `compiled` raises, and UsageError when it supports none of them.
        """
        self.contract = load_contract(kernels / op)
        instances = list(instances)
        supported = supported_by(choice, self.contract, instances)
        if instances and not supported:
            raise UsageError(f"{op}/{choice.variant.name} supports none of this model's layers")
        built, self.code = compiled(choice, self.contract, supported, cache, watermark)
        self.table: Mapping[Key, Kernel] = {key(i): kernel for i, kernel in zip(supported, built, strict=True)}

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of the contract's compile-time constants, type constants included."""
        return tuple(self.contract.constants)

    def find(self, instance: Instance | None) -> Kernel | None:
        """The kernel for a module's constants; None where this configuration has none."""
        if instance is None:
            return None
        return self.table.get(key({k: v for k, v in instance.items() if k in self.constants}))

    @property
    def seconds(self) -> float:
        """Wall seconds spent in these kernels since they were built."""
        return float(sum(kernel.seconds for kernel in self.table.values()))

"""Variants made callable: one native kernel for each set of constants that a model needs."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from baseline import native
from baseline.contract import Instance, Key, key, load_contract
from baseline.errors import UsageError
from baseline.targets import cpu
from baseline.variant import Choice


def distinct(instances: Iterable[Instance | None], constants: Iterable[str]) -> list[Instance]:
    """The different instances among `instances`, cut to the constants that a contract names, in a fixed order."""
    wanted = set(constants)
    found = {key({k: v for k, v in i.items() if k in wanted}) for i in instances if i is not None}
    return [dict(k) for k in sorted(found)]


class OpKernels:
    """The compiled kernels of one op of one configuration, looked up by a module's constants."""

    def __init__(
        self, op: str, choice: Choice, instances: Iterable[Instance | None], kernels: Path, cache: Path
    ) -> None:
        """Build (or take from `cache`) `choice` for all `instances` it supports; the others stay with MLX's ops.

        Raises what baseline.targets.cpu.build raises, and UsageError when it supports none of them.
        """
        self.contract = load_contract(kernels / op)
        instances = list(instances)
        supported = [i for i in distinct(instances, self.constants) if choice.variant.supports_instance(i)]
        if instances and not supported:
            raise UsageError(f"{op}/{choice.variant.name} supports none of this model's layers")
        library = cpu.build(choice, self.contract, supported, cache)
        self.table: Mapping[Key, native.CpuKernel] = {
            key(instance): native.CpuKernel(str(library.path), symbol, library.threads)
            for instance, symbol in zip(supported, library.symbols, strict=True)
        }

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of the contract's compile-time constants, type constants included."""
        return tuple(self.contract.constants)

    def find(self, instance: Instance | None) -> native.CpuKernel | None:
        """The kernel for a module's constants; None where this configuration has none."""
        if instance is None:
            return None
        return self.table.get(key({k: v for k, v in instance.items() if k in self.constants}))

    @property
    def seconds(self) -> float:
        """Wall seconds spent in these kernels since they were built."""
        return float(sum(kernel.seconds for kernel in self.table.values()))

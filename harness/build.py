"""The build stage: a choice of variant and tunables becomes a library with the check and the bench shapes."""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from baseline.contract import Case, Contract, Key, key
from baseline.targets import cpu
from baseline.variant import Choice
from harness.candidate import Built, Failure, Status

SHARDS = min(os.cpu_count() or 1, 4)  # compilers that run side by side, each with a share of the shapes


@dataclass(frozen=True)
class OpLibrary:
    """A built choice: `entries` holds the entry point of each set of constants that it supports."""

    choice: Choice
    contract: Contract
    entries: Mapping[Key, tuple[Path, str]]

    def entry(self, case: Case) -> dict[str, str | int]:
        """Library, symbol and threads for a case, as a child's job names them. KeyError where it is not supported."""
        path, symbol = self.entries[key(case.constants)]
        return {"library": str(path), "symbol": symbol, "threads": self.choice.threads}

    @property
    def check_cases(self) -> list[Case]:
        """The contract's check cases that the variant supports."""
        return [case for case in self.contract.check if key(case.constants) in self.entries]


def build(choice: Choice, contract: Contract, cache: Path) -> tuple[Built, OpLibrary | None]:
    """Compiles a choice for all check and bench cases that it supports; a compiler's refusal is data.

    Raises UsageError when there is no compiler or the cache cannot be written.
    """
    started = time.perf_counter()

    def failed(reason: str, log: str = "") -> tuple[Built, None]:
        return Built(time.perf_counter() - started, Failure(Status.FAILED_BUILD, reason), log), None

    supported = {
        key(case.constants): case.constants
        for case in (*contract.bench, *contract.check)
        if choice.variant.supports_instance(case.constants)
    }
    if key(contract.bench[0].constants) not in supported:
        return failed(f"{choice.variant.name} does not support the bench shape of {contract.op}")
    shards = [list(supported.values())[i::SHARDS] for i in range(SHARDS)]
    try:
        with ThreadPoolExecutor(SHARDS) as pool:
            libraries = list(pool.map(lambda shard: cpu.build(choice, contract, shard, cache), shards))
    except cpu.BuildError as error:
        return failed(first_error(str(error)), str(error))
    entries = {
        key(instance): (library.path.resolve(), symbol)
        for shard, library in zip(shards, libraries, strict=True)
        for instance, symbol in zip(shard, library.symbols, strict=True)
    }
    return Built(time.perf_counter() - started), OpLibrary(choice, contract, entries)


def first_error(log: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "the compiler failed")

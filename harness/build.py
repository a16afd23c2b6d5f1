"""The build stage: a choice of variant and tunables becomes kernels for the check and the bench shapes."""

import hashlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.contract import Case, Contract, Key, key
from baseline.durable import code_hash
from baseline.targets.compiler import BuildError
from baseline.variant import Choice
from harness.candidate import Built, Failure, Status
from harness.launch import code_file
from harness.targets import Backend, Entry

SHARDS = min(os.cpu_count() or 1, 4)  # compilers that run side by side, each with a share of the shapes
SHARE = 4  # the least that is worth another start of the compiler


@dataclass(frozen=True)
class OpLibrary:
    """A choice built for a backend: `entries` holds the kernel of each set of constants that it supports."""

    choice: Choice
    contract: Contract
    backend: Backend
    entries: Mapping[Key, Entry]
    code: Mapping[str, str]  # each file that the entries are loaded from, with the hash of its content

    def call(self, case: Case) -> dict[str, Any]:
        """The kernel and the dims of a case, as a child's job names them. KeyError where it is not supported."""
        dims = [case.dims[name] for name in self.contract.dims]
        return {**self.entries[key(case.constants)], "dims": dims}

    @property
    def check_cases(self) -> list[Case]:
        """The contract's check cases that the variant supports."""
        return [case for case in self.contract.check if key(case.constants) in self.entries]


def build(choice: Choice, contract: Contract, backend: Backend, cache: Path) -> tuple[Built, OpLibrary | None]:
    """Builds a choice for all check and bench cases that it supports; a compiler's refusal is data.

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
    count = min(SHARDS, -(-len(supported) // SHARE))
    shards = [list(supported.items())[i::count] for i in range(count)]
    try:
        with ThreadPoolExecutor(SHARDS) as pool:
            built = list(pool.map(lambda s: backend.build(choice, contract, [c for _, c in s], cache), shards))
    except BuildError as error:
        return failed(first_error(str(error)), str(error))
    entries = {
        constants: entry
        for shard, made in zip(shards, built, strict=True)
        for (constants, _), entry in zip(shard, made, strict=True)
    }
    code = {path: code_hash(Path(path)) for path in sorted({code_file(entry) for entry in entries.values()})}
    return Built(time.perf_counter() - started), OpLibrary(choice, contract, backend, entries, code)


def combined(code: Mapping[str, str]) -> str:
    """One hash for files that were built together: that of the only one, or of all their hashes."""
    hashes = sorted(code.values())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def first_error(log: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "the compiler failed")

"""The child's `prepare` job: the engine with the plain kernels, which builds what it needs. See `harness.prepare`."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from baseline.contract import load_contract
from baseline.engine import Engine
from baseline.engine.kernels import distinct
from harness.child import let_in
from harness.engine_job import warm_up
from harness.listening import channel, listen

PROMPT = [1, 2, 3, 4]  # any tokens
COMPILED = (".so", ".ptx", ".txt")  # MLX's graphs on a CPU; on CUDA its own kernels, and their names


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answers commands: see the methods of `Preparation`."""
    answers = channel()
    engine = Engine.load(Path(job["packed"]))
    let_in(job)
    return listen(answers, Preparation(engine, job), job["timeout_s"])


class Preparation:
    """The engine before it runs."""

    def __init__(self, engine: Engine, job: Mapping[str, Any]) -> None:
        self._engine, self._job = engine, job

    def instances(self) -> dict[str, Any]:
        """Those of the model, by op, for the ops that the job names."""
        contracts = {op: load_contract(Path(self._job["kernels"]) / op) for op in self._job["trusted"]}
        return {op: distinct(self._engine.instances(op), contract.constants) for op, contract in contracts.items()}

    def warm_up(self) -> dict[str, Any]:
        """Runs the plain kernels; the libraries of the cache that were loaded."""
        warm_up(self._engine, self._job, {}, PROMPT)
        keep_compiled(Path(os.environ["TMPDIR"]), Path(self._job["jit"]))
        return {"libraries": [*loaded(Path(self._job["cache"]))]}


def loaded(cache: Path) -> Iterator[str]:
    """The libraries of `cache` in this process: where that cannot be known, the whole cache."""
    if sys.platform != "linux":
        yield str(cache)
        return
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {Path(line.split(maxsplit=5)[5]) for line in maps if line.count("/")}
    yield from sorted(str(path) for path in paths if path.is_relative_to(cache))


def keep_compiled(temporary: Path, jit: Path) -> None:
    """Copies what MLX compiled, each file whole or not at all: other processes may do the same."""
    for made in (path for path in (temporary / "mlx").rglob("*") if path.suffix in COMPILED):
        kept = jit / made.relative_to(temporary)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(made, partial)
            partial.replace(kept)

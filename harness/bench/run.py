"""The whole bench: what is measured, in which order."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from baseline import probe
from baseline.engine import IoPolicy
from baseline.errors import UsageError
from baseline.probe import cores
from baseline.variant import Choice
from harness.bench import engine, ops, reads, rivals
from harness.bench.engine import EngineBench
from harness.bench.figures import Row
from harness.bench.ops import LlamaSamples, OpCase
from harness.settings import OPS

READS, ENGINE = "reads", "engine"
PARTS = (*OPS, READS, ENGINE)
LLAMA_TOKENS = 3  # of a sample

Step = Callable[[str], None]


@dataclass(frozen=True)
class BenchSettings:
    """One bench. Raises UsageError for a value out of range.

    kernels: the folder of contracts and variants; cache: that of compiled libraries; disk: where files to read are
    made; slice: the folder of the model (see EngineBench).
    choices: the variant of each op; one that it does not name gets the quickest.
    """

    kernels: Path
    cache: Path
    disk: Path
    slice: Path
    choices: Mapping[str, Choice]
    io: Mapping[str, int | str]
    parts: tuple[str, ...] = PARTS
    rounds: int = 15
    dtype: str = "float32"
    top_k: int | None = engine.TOP_K

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise UsageError(f"op must be among {', '.join(PARTS)}, got {part!r}")
        if not self.parts:
            raise UsageError(f"a bench needs at least one of {', '.join(PARTS)}")
        if not 1 <= self.rounds <= 1000:
            raise UsageError(f"rounds must be from 1 to 1000, got {self.rounds}")
        IoPolicy(**self.io)  # type: ignore[arg-type]  # refuses what cannot be

    def to_json(self) -> dict[str, Any]:
        """What a record says of the run."""
        named = {"parts": ", ".join(self.parts), "rounds": self.rounds, "dtype": self.dtype, "top_k": self.top_k}
        return named | dict(self.io)


def bench(settings: BenchSettings, step: Step) -> Iterator[Row]:
    """The rows, as they are measured; `step` hears what is done now.

    Raises what a build raises for the memory's reader and for variants that `settings` names.
    """
    choices = dict(settings.choices)
    plain_readers = probe.library(settings.cache) if set(settings.parts) != {ENGINE} else nullcontext(Path())
    with plain_readers as library:
        yield from _ops(settings, library, choices, step)
        if READS in settings.parts:
            io = IoPolicy(**settings.io)  # type: ignore[arg-type]
            step("reads: writing a file")
            yield from reads.measure(settings.disk, library, io, settings.rounds, lambda size: step(f"reads: {size}"))
    if ENGINE in settings.parts:
        yield from engine.measure(_engine(settings, choices), settings.rounds, step)


def _ops(settings: BenchSettings, library: Path, choices: dict[str, Choice], step: Step) -> Iterator[Row]:
    """Rows of the ops that are asked for; `choices` gets the quickest variant of each op that is needed."""
    measured = [op for op in OPS if op in settings.parts]
    needed = OPS if ENGINE in settings.parts and not _engine(settings, {}).missing() else measured
    with ExitStack() as stack:
        llama = _llama(settings, stack, step) if measured else LlamaSamples(None)
        for op in needed:
            if op in choices and op not in measured:
                continue
            case = ops.op_case(settings.kernels, op)
            if op not in choices:
                step(f"ops: the quickest variant of {op}")
                choices |= _quickest(settings, op, case)
            if op in measured:
                step(f"ops: {op}")
                yield from _op(settings, library, choices.get(op), case, llama)
            del case
            mx.clear_cache()
        if measured:
            yield llama.row()


def _quickest(settings: BenchSettings, op: str, case: OpCase) -> dict[str, Choice]:
    usable = ops.usable_choices(settings.kernels, op)
    best = ops.best_choice(usable, case, settings.cache)
    return {} if best is None else {op: best}


def _op(
    settings: BenchSettings, library: Path, choice: Choice | None, case: OpCase, llama: LlamaSamples
) -> Iterator[Row]:
    op = case.contract.op
    if choice is None:
        yield Row(ops.TABLE, op, "cpu", ops.UNIT, note="no variant builds on this machine")
        return
    yield from ops.measure(case, choice, library, settings.cache, settings.rounds, llama)


def _llama(settings: BenchSettings, stack: ExitStack, step: Step) -> LlamaSamples:
    """llama.cpp in a process of its own, where it is installed."""
    step("llama.cpp: making and loading a dense model")
    rival = rivals.start_llama(stack, "harness.bench.llama", "Dense", settings.disk, cores())
    if rival.process is None:
        return LlamaSamples(None, rival.reason)
    process = rival.process
    return LlamaSamples(lambda: float(process.call("decode", LLAMA_TOKENS)))


def _engine(settings: BenchSettings, choices: Mapping[str, Choice]) -> EngineBench:
    written = {op: (str(choice.variant.path), dict(choice.tunables)) for op, choice in choices.items()}
    return EngineBench(
        settings.slice,
        settings.dtype,
        settings.top_k,
        written,
        settings.io,
        settings.kernels,
        settings.cache,
        settings.disk,
    )

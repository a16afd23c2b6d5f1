"""The engine on a slice of a large model: a layer, decode beside mlx-lm and llama.cpp, prefill, memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from baseline.manifest import MANIFEST
from baseline.probe import cores
from harness.bench.actors import Choices, LayerTimes
from harness.bench.figures import Figure, Row, Target, interleave, paired
from harness.bench.llama_models import Touched
from harness.bench.process import Process
from harness.bench.rivals import LLAMA, Rival, start, start_llama

LAYER, DECODE = "layer", "decode"
ACTORS = "harness.bench.actors"
MLX = "mlx-lm"
SLICE = "qwen3.5-397b-a17b", "layers=4 experts=64 vocab=32768"
TOP_K = 4
MOST_OVER_PARTS, LEAST_OF_MLX, LEAST_OF_DECODE = 1.10, 20.0, 8.0
LEAST_OF_LLAMA, LEAST_OF_LLAMA_MISSING = 1.0, 4.0
PROMPT_TOKENS = 512
# Of a sample: mlx-lm needs seconds for one, and llama.cpp a second for one whose experts are all missing.
WARM_TOKENS, COLD_TOKENS, RESIDENT_TOKENS, MISSING_TOKENS = 8, 4, 1, 2
SLOW = 5  # a prefill of a whole prompt is measured in every fifth round
WARM_UP_TOKENS = 16
MAPPING_TOKENS = 96  # after which most experts of the slice are mapped: each costs page faults when it first is
CACHES = {"warm": "os", "cold": "direct"}
MAPPED = "mapped"
HOW = {
    "warm": "from the page cache",
    MAPPED: "in the page cache, which then counts as memory of the process",
    "cold": "direct reads, past the page cache",
}
LLAMA_WARM, LLAMA_MISSING = "llama.cpp warm", "llama.cpp, every expert missing"
ROWS = {  # the name and the contender of each arm of decode
    "warm": ("decode warm", "streamed"),
    MAPPED: ("decode mapped", "streamed"),
    LLAMA_WARM: ("decode warm", LLAMA),
    "cold": ("decode cold", "streamed"),
    LLAMA_MISSING: ("decode, every expert missing", LLAMA),
    MLX: ("decode", MLX),
}
OVER = {  # the arms it is compared with
    "warm": {MLX: MLX, LLAMA: LLAMA_WARM},
    MAPPED: {MLX: MLX, LLAMA: LLAMA_WARM},
    "cold": {MLX: MLX, LLAMA: LLAMA_MISSING},
}
TARGETS = {
    "warm": (Target(MLX, LEAST_OF_MLX), Target(LLAMA, LEAST_OF_LLAMA)),
    MAPPED: (Target(LLAMA, LEAST_OF_LLAMA),),
    "cold": (Target(LLAMA, LEAST_OF_LLAMA_MISSING),),
}


@dataclass(frozen=True)
class EngineBench:
    """What to measure: `folder` holds the model twice, as `checkpoint` and as `packed`; llama.cpp's lies in `disk`."""

    folder: Path
    dtype: str
    top_k: int | None
    choices: Choices
    io: Mapping[str, int | str]
    kernels: Path
    cache: Path
    disk: Path

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, for mlx-lm."""
        return self.folder / "checkpoint"

    @property
    def packed(self) -> Path:
        """The packed model."""
        return self.folder / "packed"

    def kernels_named(self) -> str:
        """The variants that the engine runs, in words."""
        named = ", ".join(f"{op} {Path(path).stem}" for op, (path, _) in self.choices.items())
        return f"kernels: {named or 'none'}"

    def missing(self) -> str:
        """The commands that make the model; '' when it is there."""
        if (self.checkpoint / "config.json").is_file() and (self.packed / MANIFEST).is_file():
            return ""
        name, options = SLICE
        make = f"nightforge synth {name} {self.checkpoint} {options}"
        return f"{make} && nightforge pack {self.checkpoint} {self.packed}"


def measure(bench: EngineBench, rounds: int, step: Callable[[str], None]) -> Iterator[Row]:
    """Rows of the layer, of decode and of prefill; what cannot be measured is a row that says why."""
    if missing := bench.missing():
        yield Row(DECODE, "slice", "streamed", "tokens/s", note=f"there is no model; make it with: {missing}")
        return
    with ExitStack() as stack:
        try:
            step("engine: loading the streamed model")
            given = bench.packed, bench.dtype, bench.top_k, bench.choices, bench.kernels, bench.cache
            streamed, mapped = (stack.enter_context(Process(ACTORS, "Streamed", *given)) for _ in range(2))
            step("engine: loading the model into mlx-lm")
            resident = start(stack, ACTORS, "Resident", bench.checkpoint, bench.dtype, bench.top_k)
            step("engine: making and loading the model for llama.cpp")
            made = bench.checkpoint, bench.top_k, bench.disk, cores()
            llama = start_llama(stack, "harness.bench.llama_slice", "Slice", *made)
            step("engine: decode, warm and cold, in mlx-lm and in llama.cpp")
            yield from decode_rows(bench, streamed, mapped, resident, llama, rounds)
            yield memory_row("after decode", streamed)
            step("engine: one layer, warm and cold")
            yield from layer_rows(bench, streamed, rounds)
            step(f"engine: prefill of {PROMPT_TOKENS} tokens")
            yield from prefill_rows(bench, streamed, max(rounds // SLOW, 1))
            yield memory_row("after prefill", streamed)
        except RuntimeError as error:
            yield Row(DECODE, "slice", "streamed", "tokens/s", note=str(error))


def _policies(bench: EngineBench) -> dict[str, dict[str, int | str]]:
    return {name: {**bench.io, "cache": cache} for name, cache in CACHES.items()}


def layer_rows(bench: EngineBench, streamed: Process, rounds: int) -> Iterator[Row]:
    """Whole layers against their parts, warm and cold."""
    arms = {name: _layer(streamed, io) for name, io in _policies(bench).items()}
    try:
        samples = interleave(arms, rounds)
    except RuntimeError as error:
        yield Row(LAYER, "warm and cold", "whole layer", "ms", note=str(error))
        return
    for name, times in samples.items():
        yield from rows_of_layer(name, times)


def _layer(streamed: Process, io: Mapping[str, int | str]) -> Callable[[], LayerTimes]:
    return lambda: streamed.call("layer", io)


def rows_of_layer(name: str, times: Sequence[LayerTimes]) -> Iterator[Row]:
    """The layer, its reads alone and its kernels alone, in one state of the page cache."""
    parts = [time.read + time.kernels for time in times]
    ratios = {"parts": paired([time.whole for time in times], parts)}
    whole = Figure.of([time.whole for time in times])
    target = Target("parts", MOST_OVER_PARTS, least=False)
    yield Row(LAYER, name, "whole layer", "ms", whole, ratios, (target,), HOW[name])
    yield Row(LAYER, name, "reads alone", "ms", Figure.of([time.read for time in times]))
    yield Row(LAYER, name, "kernels alone", "ms", Figure.of([time.kernels for time in times]))


def decode_rows(
    bench: EngineBench, streamed: Process, mapped: Process, resident: Rival, llama: Rival, rounds: int
) -> Iterator[Row]:
    """Tokens/s of the engine, warm and cold, of mlx-lm's resident model, and of llama.cpp, in turn.

    `mapped` is the engine in a process of its own: its memory is not what `streamed` is to keep within the bound.
    """
    io, notes = _policies(bench) | {MAPPED: {**bench.io, "cache": MAPPED}}, dict(HOW)
    notes["warm"] += f"; {bench.kernels_named()}"
    mapped.call("decode", io[MAPPED], MAPPING_TOKENS)
    arms: dict[str, Callable[[], float]] = {
        "warm": lambda: streamed.call("decode", io["warm"], WARM_TOKENS),
        MAPPED: lambda: mapped.call("decode", io[MAPPED], WARM_TOKENS),
        "cold": lambda: streamed.call("decode", io["cold"], COLD_TOKENS),
    }
    arms |= _resident_arms(resident, notes) | _llama_arms(llama, notes)
    samples = interleave(arms, rounds)
    if resident.process is not None:
        peak = resident.process.call("memory")
        notes[MLX] = f"resident, in {bench.dtype} like the engine; peak RSS {peak / 1e6:.0f} MB"
    if llama.process is not None:
        notes |= _llama_notes(llama.process.call("touched"), samples)
    yield from rows_of_decode(samples, notes)


def _resident_arms(resident: Rival, notes: dict[str, str]) -> dict[str, Callable[[], float]]:
    process = resident.process
    if process is None:
        notes[MLX] = resident.reason
        return {}
    return {MLX: lambda: process.call("decode", RESIDENT_TOKENS)}


def _llama_arms(llama: Rival, notes: dict[str, str]) -> dict[str, Callable[[], float]]:
    """What cannot be measured is a note instead."""
    process = llama.process
    if process is None:
        notes[LLAMA_WARM] = llama.reason
        return {}
    arms: dict[str, Callable[[], float]] = {LLAMA_WARM: lambda: process.call("warm", WARM_TOKENS)}
    if obstacle := process.call("obstacle"):
        notes[LLAMA_MISSING] = obstacle
        return arms
    return arms | {LLAMA_MISSING: lambda: process.call("missing", MISSING_TOKENS)}


def _llama_notes(touched: Touched, samples: Mapping[str, object]) -> dict[str, str]:
    """By arm that was measured: what a token reads there."""
    weights, experts, disk = (f"{nbytes / 1e6:.0f} MB" for nbytes in (touched.weights, touched.experts, touched.disk))
    notes = {
        LLAMA_WARM: f"{touched.architecture}, Q4_0, in memory; a token touches {weights}, {experts} of experts",
        LLAMA_MISSING: f"mapped, and dropped before each token, which reads {disk} for {experts} of experts",
    }
    return {arm: note for arm, note in notes.items() if arm in samples}


def rows_of_decode(samples: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> Iterator[Row]:
    """Rows of tokens/s by arm (see ROWS); an arm that has no samples is a row when it has a note, which says why."""
    for arm in (arm for arm in ROWS if arm in samples or arm in notes):
        name, contender = ROWS[arm]
        figure = Figure.of(samples[arm]) if arm in samples else None
        others = {of: other for of, other in OVER.get(arm, {}).items() if other in samples}
        ratios = {of: paired(samples[arm], samples[other]) for of, other in others.items()}
        yield Row(DECODE, name, contender, "tokens/s", figure, ratios, TARGETS.get(arm, ()), notes[arm])


def prefill_rows(bench: EngineBench, streamed: Process, rounds: int) -> Iterator[Row]:
    """Tokens/s of a prompt against those of decode, both warm."""
    io = _policies(bench)["warm"]
    arms: dict[str, Callable[[], float]] = {
        "prefill": lambda: streamed.call("prefill", io, PROMPT_TOKENS),
        "decode": lambda: streamed.call("decode", io, WARM_TOKENS),
    }
    streamed.call("prefill", io, WARM_UP_TOKENS)
    samples = interleave(arms, rounds, warm_up=False)
    ratios = {"decode": paired(samples["prefill"], samples["decode"])}
    name, target = f"prefill of {PROMPT_TOKENS}", Target("decode", LEAST_OF_DECODE)
    yield Row(DECODE, name, "streamed", "tokens/s", Figure.of(samples["prefill"]), ratios, (target,), HOW["warm"])


def memory_row(when: str, streamed: Process) -> Row:
    """The peak of the streamed process so far, against the bound."""
    memory = streamed.call("memory")
    ratios = {"bound": paired([memory.peak], [memory.bound])}
    note = f"the peak; bound {memory.bound / 1e6:.0f} MB: resident weights, experts of two tokens, 400 MB"
    target = Target("bound", 1.0, least=False)
    return Row(DECODE, f"RSS {when}", "streamed", "MB", Figure.of([memory.peak / 1e6]), ratios, (target,), note)

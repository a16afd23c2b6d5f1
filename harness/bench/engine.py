"""The engine on a slice of a large model: a layer against its parts, decode and prefill, memory; beside mlx-lm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from baseline.manifest import MANIFEST
from harness.bench.actors import Choices, LayerTimes
from harness.bench.figures import Figure, Row, Target, interleave, paired
from harness.bench.process import Process

LAYER, DECODE = "layer", "decode"
ACTORS = "harness.bench.actors"
SLICE = "qwen3.5-397b-a17b", "layers=4 experts=64 vocab=32768"
TOP_K = 4
MOST_OVER_PARTS, LEAST_OF_MLX, LEAST_OF_DECODE = 1.10, 20.0, 8.0
PROMPT_TOKENS = 512
WARM_TOKENS, COLD_TOKENS, RESIDENT_TOKENS = 8, 4, 1  # of a sample: mlx-lm needs seconds for one
SLOW = 5  # a prefill of a whole prompt is measured in every fifth round
WARM_UP_TOKENS = 16
CACHES = {"warm": "os", "cold": "direct"}
HOW = {"warm": "from the page cache", "cold": "direct reads, past the page cache"}


@dataclass(frozen=True)
class EngineBench:
    """What to measure: `folder` holds the model twice, as `checkpoint` and as `packed`."""

    folder: Path
    dtype: str
    top_k: int | None
    choices: Choices
    io: Mapping[str, int | str]
    kernels: Path
    cache: Path

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, for mlx-lm."""
        return self.folder / "checkpoint"

    @property
    def packed(self) -> Path:
        """The packed model."""
        return self.folder / "packed"

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
            streamed = stack.enter_context(Process(ACTORS, "Streamed", *given))
            step("engine: loading the model into mlx-lm")
            resident, reason = _resident(bench, stack)
            step("engine: decode, warm, cold and in mlx-lm")
            yield from decode_rows(bench, streamed, resident, reason, rounds)
            yield memory_row("after decode", streamed)
            step("engine: one layer, warm and cold")
            yield from layer_rows(bench, streamed, rounds)
            step(f"engine: prefill of {PROMPT_TOKENS} tokens")
            yield from prefill_rows(bench, streamed, max(rounds // SLOW, 1))
            yield memory_row("after prefill", streamed)
        except RuntimeError as error:
            yield Row(DECODE, "slice", "streamed", "tokens/s", note=str(error))


def _resident(bench: EngineBench, stack: ExitStack) -> tuple[Process | None, str]:
    """mlx-lm's process, or why there is none."""
    try:
        process = Process(ACTORS, "Resident", bench.checkpoint, bench.dtype, bench.top_k)
    except RuntimeError as error:
        return None, str(error)
    return stack.enter_context(process), ""


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
    bench: EngineBench, streamed: Process, resident: Process | None, reason: str, rounds: int
) -> Iterator[Row]:
    """Tokens/s of the engine, warm and cold, and of mlx-lm's resident model, in turn."""
    io = _policies(bench)
    arms: dict[str, Callable[[], float]] = {
        "warm": lambda: streamed.call("decode", io["warm"], WARM_TOKENS),
        "cold": lambda: streamed.call("decode", io["cold"], COLD_TOKENS),
    }
    if resident is not None:
        arms["mlx-lm"] = lambda: resident.call("decode", RESIDENT_TOKENS)
    samples = interleave(arms, rounds)
    resident_peak = "" if resident is None else f"peak RSS {resident.call('memory') / 1e6:.0f} MB"
    for name in CACHES:
        ratios = {"mlx-lm": paired(samples[name], samples["mlx-lm"])} if "mlx-lm" in samples else {}
        targets = (Target("mlx-lm", LEAST_OF_MLX),) if name == "warm" else ()
        rate = Figure.of(samples[name])
        yield Row(DECODE, f"decode {name}", "streamed", "tokens/s", rate, ratios, targets, HOW[name])
    figure = Figure.of(samples["mlx-lm"]) if "mlx-lm" in samples else None
    note = reason or f"resident, in {bench.dtype} like the engine; {resident_peak}"
    yield Row(DECODE, "decode", "mlx-lm", "tokens/s", figure, note=note)


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

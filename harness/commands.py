"""What each command does. Heavy imports stay inside the commands, so that --help is instant."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baseline.errors import CheckError, UsageError
from harness.config import Config, chosen_ops
from harness.paths import cache_folder, data_folder

if TYPE_CHECKING:
    from baseline.engine import Engine
    from baseline.golden import GoldenReport
    from harness.bench.run import BenchSettings
    from harness.confirm import Summary
    from harness.models import PackedModel
    from harness.settings import SearchSettings


@dataclass(frozen=True)
class Result:
    """What a command found: its JSON object, and what did not hold ('' when all did)."""

    fields: Mapping[str, Any]
    failed: str = ""
    interrupted: bool = False


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def doctor(arguments: Namespace, config: Config) -> Result:
    """`nightforge doctor`."""
    from harness.doctor import examine, models_folder
    from harness.doctor_view import progress_line, show

    folder = models_folder(config.model)
    with progress_line() as step:
        report = examine(folder, step)
    if not arguments.json:
        show(report)
    return Result(report.to_json())


def pack(arguments: Namespace, config: Config) -> Result:
    """`nightforge pack SRC DST`."""
    from baseline import pack as packing
    from baseline.manifest import MANIFEST
    from baseline.relayout import relayout, verify_relayout
    from harness.chosen import named_layout
    from harness.display import byte_progress

    src, dst = Path(arguments.src), Path(arguments.dst)
    layout, packed = named_layout(arguments.layout), (src / MANIFEST).is_file()
    start = time.perf_counter()
    with byte_progress("converting" if packed else "packing") as progress:
        manifest = (relayout if packed else packing.pack)(src, dst, layout, progress)
    if arguments.verify:
        with byte_progress("verifying") as progress:
            packing.verify(dst, None if packed else src, progress)
    if arguments.verify and packed:
        with byte_progress("comparing") as progress:
            verify_relayout(dst, src, progress)
    experts = sum(layer.experts for layer in manifest.layers)
    nbytes = sum(layer.nbytes for layer in manifest.layers) + manifest.resident.nbytes
    seconds = time.perf_counter() - start
    verified = ", verified" if arguments.verify else ""
    say(f"{dst}: {experts} experts, {nbytes / 1e6:.1f} MB in {seconds:.1f} s{verified}")
    return Result({"experts": experts, "bytes": nbytes, "seconds": seconds, "verified": arguments.verify})


def synth(arguments: Namespace, config: Config) -> Result:
    """`nightforge synth CONFIG DST`."""
    from baseline.shapes import make_shape
    from baseline.synth import synth as write
    from baseline.synth import tokenizer_ids
    from harness.display import byte_progress
    from harness.paths import bundled_model

    dst, tokenizer = Path(arguments.dst), bundled_model()
    ids = tokenizer_ids(tokenizer)
    shape = make_shape(arguments.config, config.layers, config.experts, config.vocab, ids)
    start = time.perf_counter()
    with byte_progress("writing") as progress:
        nbytes = write(shape, dst, tokenizer, config.seed, progress)
    seconds = time.perf_counter() - start
    parts = f"{shape.layers} layers, {shape.experts} experts in each, a vocabulary of {shape.vocab}"
    say(f"{dst}: {shape.model} with {parts}; {nbytes / 1e6:.1f} MB in {seconds:.1f} s")
    return Result({"path": str(dst), "bytes": nbytes, "seconds": seconds})


def generate(arguments: Namespace, config: Config) -> Result:
    """`nightforge generate`."""
    _use_device(config.target.name)
    from baseline.engine.generate import generate as run
    from baseline.page_cache import share_text

    engine, _ = _engine(config)
    prompt = _prompt_tokens(engine.tokenizer, config.prompt)

    def stream(text: str) -> None:
        print(text, end="", flush=True)

    made = run(engine, prompt, config.max_tokens, (lambda _: None) if arguments.json else stream)
    if not arguments.json:
        print()
    say(
        f"{len(made.tokens)} tokens, {made.tokens_per_s:.1f} tokens/s; "
        f"{made.ttft_s:.2f} s to the first token after a prompt of {made.prompt_tokens}; "
        f"{made.read_bytes_per_token / 1e6:.2f} MB read a token{share_text(made.cached)}"
    )
    say("seconds by phase: " + ", ".join(f"{name} {value:.2f}" for name, value in made.phases.items()))
    return Result(asdict(made))


def golden_record(arguments: Namespace, config: Config) -> Result:
    """`nightforge golden record`."""
    _use_device("cpu")
    from baseline.checkpoint import fingerprint
    from baseline.golden import tool_score
    from baseline.record import record
    from harness.models import checkpoint, golden_folder
    from harness.paths import BUNDLED, bundled_model

    source = checkpoint(config.model)
    # A model without texts of its own is asked about the bundled ones.
    own = source / "heldout"
    heldout = own if own.is_dir() else bundled_model() / "heldout"
    folder = golden_folder(config.golden, fingerprint(source), config.model == BUNDLED)
    golden = record(source, folder, heldout, say, dtype=config.dtype)
    score = tool_score(golden, golden.answers)
    say(f"recorded {config.model} in {config.dtype} to {folder}: perplexity {golden.perplexity():.2f}")
    fields = {"folder": str(folder), "fingerprint": asdict(golden.fingerprint)}
    return Result(fields | {"perplexity": golden.perplexity(), "tool_calls": asdict(score)})


def golden_check(arguments: Namespace, config: Config) -> Result:
    """`nightforge golden check`."""
    _use_device(config.target.name)
    from baseline.golden import Fingerprint, compare, load
    from baseline.questions import answer
    from baseline.tolerance import Tolerance
    from harness.models import golden_folder

    engine, packed = _engine(config)
    golden = load(golden_folder(config.golden, packed.fingerprint, packed.bundled))
    golden.fingerprint.require(Fingerprint.here(packed.fingerprint, config.dtype))
    limits = Tolerance(config.judge.kl, config.judge.tie, config.judge.perplexity)
    report = compare(golden, answer(engine.model, engine.tokenizer, golden.questions, say), limits)
    if report.ok:
        say(_agreement(report))
    return Result(asdict(report), f"golden mismatch: {report.reason}" if report.reason else "")


def _agreement(report: "GoldenReport") -> str:
    how = "to the last bit" if report.identical else f"within tolerance (largest KL {report.max_kl:.1e})"
    got = report.tool_calls[1]
    tools = f"{got.exact} of {got.prompts} tool calls exact" if got.prompts else "no tool prompts"
    return f"the golden record is reproduced {how}; {tools}"


def bench(arguments: Namespace, config: Config) -> Result:
    """`nightforge bench`."""
    _use_device("cpu")
    from rich.console import Console

    from harness.bench import record
    from harness.bench.run import bench as run
    from harness.bench.view import show
    from harness.doctor import machine
    from harness.doctor_view import progress_line
    from harness.settings import writable

    settings, here = bench_settings(config), machine()
    folder = writable(Path(config.out)) if config.out else None
    with progress_line() as step:
        rows = list(run(settings, step))
    if not arguments.json:
        show(rows, Console(highlight=False, width=None if sys.stdout.isatty() else 120))
    if folder is not None:
        record.write(folder, rows, here, settings.to_json())
        say(f"recorded in {folder}")
    return Result({"machine": asdict(here), "rows": [row.to_json() for row in rows]})


def bench_settings(config: Config) -> "BenchSettings":
    """The bench that a configuration asks for. UsageError for what it cannot be."""
    from harness.bench.engine import TOP_K
    from harness.bench.run import PARTS, BenchSettings
    from harness.chosen import given

    named = given(config)
    models = cache_folder() / "models"
    return BenchSettings(
        kernels=data_folder("kernels"),
        cache=cache_folder() / "build",
        disk=models,
        slice=Path(config.slice) if config.slice else models / "slice",
        choices=named.choices,
        io=named.io,
        parts=chosen_ops(config, PARTS),
        rounds=config.rounds,
        dtype=config.dtype,
        top_k=config.top_k or TOP_K,
    )


def search(arguments: Namespace, config: Config) -> Result:
    """`nightforge search`."""
    from harness.display import print_summary, watch
    from harness.loop import search as run
    from harness.propose.claude.settings import forecast
    from harness.report import write_report

    settings = search_settings(arguments, config)
    if (model := settings.proposer.claude) is not None:
        say(forecast(model, settings.candidates, settings.minutes))
    try:
        with watch(settings) as observer:
            summary = run(settings, observer)
    except CheckError:  # a champion that did not confirm: what was found is still worth a look
        if (settings.run / "ledger.tsv").exists():
            write_report(settings.run)
        raise
    confirmed = summary.confirmed.ops if summary.confirmed else {}
    chart, table = write_report(settings.run, summary.speedup, summary.models, confirmed)
    print_summary(summary, chart)
    refuted = summary.confirmed.refuted if summary.confirmed else ""
    failed = f"what was found is not there in fresh processes: {refuted}" if refuted else ""
    return Result(_search_fields(summary, chart, table, config), failed, interrupted=summary.interrupted)


def _search_fields(summary: "Summary", chart: Path | None, table: Path, config: Config) -> dict[str, Any]:
    files = {"chart": str(chart) if chart else None, "table": str(table)}
    return summary.to_json() | {"proposer": config.proposer.name, **files}


def search_settings(arguments: Namespace, config: Config) -> "SearchSettings":
    """The search that a configuration asks for. UsageError for what it cannot be."""
    from harness.models import golden_folder, packed_model
    from harness.propose.settings import ProposerSettings
    from harness.settings import PARTS, SearchSettings

    if config.dtype != "float32" or config.top_k is not None or config.configuration is not None:
        raise UsageError("a search computes in float32 from the plain kernels: no dtype, top_k or configuration")
    if arguments.resume and config.run is None:
        raise UsageError("--resume needs the folder of the run to go on with: run=FOLDER")
    run = Path(config.run) if config.run else Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    packed = packed_model(config.model, say)
    return SearchSettings(
        run=run,
        packed=packed.folder,
        kernels=data_folder("kernels"),
        cache=cache_folder() / "build",
        golden=golden_folder(config.golden, packed.fingerprint, packed.bundled),
        target=config.target.name,
        proposer=ProposerSettings.given(asdict(config.proposer)),
        ops=chosen_ops(config, PARTS),
        io=asdict(config.io),
        judge=asdict(config.judge),
        variants=config.variants,
        state=config.state,
        minutes=config.minutes,
        min_gain=config.min_gain,
        timeout_s=config.timeout_s,
        sandbox=config.sandbox,
        seed=config.seed,
        resume=arguments.resume,
        candidates=config.candidates,
    )


def verify(arguments: Namespace, config: Config) -> Result:
    """`nightforge verify RUN`."""
    from harness.display import Stages, print_rerun
    from harness.rerun import rerun
    from harness.winner import load_winner

    winner = load_winner(Path(arguments.run_folder))
    config.target.name, config.run = winner.target, arguments.run_folder
    found = rerun(winner, search_settings(Namespace(resume=False), config), Stages())
    print_rerun(found)
    return Result(found.to_json(), "" if found.reproduced else f"not reproduced: {found.reason}")


def evaluate(arguments: Namespace, config: Config) -> Result:
    """`nightforge evaluate FILE`: beside the `configuration` option's kernels, or those that were applied."""
    from dataclasses import replace

    from harness.chosen import chosen, given
    from harness.display import Stages, print_answer
    from harness.evaluate import evaluate as judge
    from harness.models import packed_model

    path = Path(arguments.file)
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    use = chosen(config, given(config), packed_model(config.model, say).fingerprint, say)
    config.configuration = None  # a search's settings have none
    settings = replace(search_settings(Namespace(resume=False), config), io=use.io)
    answer = judge(text, path.stem, settings, use.choices, Stages())
    print_answer(answer)
    return Result(answer.to_json(), "" if answer.passed else f"{path.name}: {answer.stage}: {answer.reason}")


def apply(arguments: Namespace, config: Config) -> Result:
    """`nightforge apply RUN`."""
    from harness.applied import apply as make_default
    from harness.winner import load_winner

    winner = load_winner(Path(arguments.run_folder))
    made = make_default(winner)
    say(f"{winner.champion.id} is the default of {made.target} for its model now: {made.folder}")
    return Result({"applied": winner.champion.id, "target": made.target, "folder": str(made.folder)})


def _use_device(target: str) -> None:
    """Compute where the target's kernels run, as its children do; MLX alone would choose any GPU.

    Called before mlx-lm is imported, which takes the default device for a stream of its own.
    """
    import mlx.core as mx

    from baseline import nvidia
    from harness import targets

    if target == "cuda":
        os.environ.update(nvidia.SETTINGS)
    mx.set_default_device(getattr(mx, targets.here(target).timed.device))


def _engine(config: Config) -> "tuple[Engine, PackedModel]":
    """The engine of the `model` option with the configuration's kernels, I/O policy and layout."""
    from baseline.engine import Engine, IoPolicy
    from harness.chosen import chosen, given
    from harness.models import packed_model

    named = given(config)  # before a model is packed: this may be what is wrong
    IoPolicy(**dict(named.io))  # type: ignore[arg-type]  # raises UsageError
    packed = packed_model(config.model, say)
    use = chosen(config, named, packed.fingerprint, say)
    engine = Engine.load(use.folder(packed, say), config.dtype, config.top_k)
    io = IoPolicy(**dict(use.io))  # type: ignore[arg-type]
    engine.configure(use.choices, io, kernels=use.kernels, cache=cache_folder() / "build")
    return engine, packed


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """The prompt as a user's message where the model has a chat template, else as it is."""
    if not prompt:
        raise UsageError("prompt is empty; give one with prompt='...'")
    if not tokenizer.has_chat_template:
        return list(tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


Command = Callable[[Namespace, Config], Result]

"""The search: propose, build, verify, measure, keep."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

from optuna.exceptions import StorageInternalError

from baseline.errors import UsageError
from baseline.layout import Layout
from baseline.variant import PLAIN, Choice, Variant
from harness import isolation, targets
from harness.ahead import Ahead, Queue
from harness.candidate import ENGINE_PARTS, IO, Candidate, Configuration, KernelSpec, Stage, Status, identify
from harness.confirm import Confirmed, Summary, confirm, headline
from harness.control import controls, written
from harness.costs import Costs, Meter
from harness.judge import Judge
from harness.layouts import usable_layouts
from harness.ledger import Ledger, Row, latest, load_rows, unmeasured
from harness.points import points
from harness.progress import Observer, Silent
from harness.propose.base import Proposer
from harness.propose.claude.event import Spent
from harness.proposers import Workshop, make
from harness.rows import seed_row, to_row
from harness.run_folder import CONFIRMATION, RunFolder
from harness.settings import OPS, SearchSettings
from harness.shelf import Shelf, usable_variants
from harness.study import Study
from harness.targets import Target


def search(settings: SearchSettings, observer: Observer | None = None) -> Summary:
    """Searches until the time, the candidates or the ideas run out, then confirms the champion.

    Where the target cannot measure (Metal without an Apple GPU) candidates are built and checked, and left unmeasured;
    the search times those first when it is resumed where it can. Ctrl-C ends it cleanly, with what the ledger holds and
    without a confirmation. Raises UsageError for a run folder that cannot be used, a packed model or a golden record
    that is none, no compiler, or a missing layer of a required sandbox; CheckError when one of them is damaged, the
    seed is not sound, what it is judged by changes during the search, or the champion does not confirm.
    """
    started, meter = time.monotonic(), Meter()
    observer = observer or Silent()
    isolation.require(settings.sandbox)
    target = targets.here(settings.target)
    parts = searchable(settings, target)
    variants = usable_variants(settings, target)
    run = RunFolder(settings)
    shelf = Shelf(variants, target, run.kernels, usable_layouts(settings))
    judge = Judge(settings, target, shelf, observer, run.scratch)
    with (
        meter.counting(),
        Ledger(run.ledger) as ledger,
        run.seal.speaks_first(),
        proposing(settings, run, ledger, shelf, parts) as proposer,
    ):
        interrupted, confirmed, before = False, None, 0
        try:
            with meter.phase("opening"):
                seed, champion = start(judge, run, ledger, started)
            before = len(ledger.rows)
            with meter.phase("search"):
                champion = climb(judge, proposer, seed, champion, run, ledger, started)
                run.seal.check(thoroughly=True)
            if target.measures:
                observer.on_stage(champion, Stage.CONFIRM)
                with meter.phase("confirmation"):
                    confirmed = confirm(judge, champion, seed, run.scratch_of(champion.id))
                    run.seal.check(thoroughly=True)
        except KeyboardInterrupt:
            ledger.rows = load_rows(run.ledger)  # a row may have been written, and not been added to them
            if not ledger.rows:
                raise
            interrupted = True
        summary = summarise(ledger.rows, settings, target, confirmed, interrupted, time.monotonic() - started)
        costs = Costs(meter.seconds(), meter.phases, len(ledger.rows) - before)
        summary = replace(summary, costs=costs, noise=judge.watch.to_json())
    run.account(ledger.rows)
    summary = replace(summary, language_model=run.model_use(ledger.rows))  # with what the proposer let go of at its end
    gains = {op: speedup.value for op, speedup in confirmed.ops.items()} if confirmed else {}
    control = controls(points(ledger.rows), written(run.path))
    summary = replace(summary, models=run.credited(ledger.rows, gains), control=control)
    if confirmed is not None and confirmed.samples is not None:
        run.write(CONFIRMATION, asdict(confirmed.samples))
    run.write("summary.json", {name: found for name, found in summary.to_json().items() if name != "run"})
    return summary


@contextmanager
def proposing(
    settings: SearchSettings, run: RunFolder, ledger: Ledger, shelf: Shelf, parts: Sequence[str]
) -> Iterator[Proposer]:
    """The proposer that the settings ask for, for as long as it is needed. UsageError for what it cannot work with."""
    study = Study(run.study, settings.seed)
    try:
        study.recover(ledger.rows)
        proposer = make(settings.proposer, Workshop(run, ledger, shelf, study, parts, settings))
        try:
            yield proposer
        finally:
            proposer.close()
    except StorageInternalError as error:  # SQLite's: a full disk, for one
        raise UsageError(f"{run.study}: {error}") from None


def climb(
    judge: Judge,
    proposer: Proposer,
    seed: Candidate,
    champion: Candidate,
    run: RunFolder,
    ledger: Ledger,
    started: float,
) -> Candidate:
    """The loop itself: returns the last champion when the time, the candidates or the ideas have run out.

    While a candidate is measured the kernels of the one after it are built, where that one is known at once.
    """
    settings, judged = judge.settings, 0
    queue = Queue(proposer, seed, untimed(run, ledger, judge))
    with Ahead(judge) as ahead, queue:
        while time.monotonic() - started < 60 * settings.minutes and judged != settings.candidates:
            candidate = queue.take(champion, ledger.rows, judge.variants)
            if candidate is None:
                break
            ahead.finish()
            if judged + 1 != settings.candidates:
                ahead.start(queue.peek(champion, ledger.rows, candidate))
            row = evaluate(judge, candidate, champion, run, ledger, started, queue.spent())
            queue.observe(row)
            judged += 1
            if row.status is Status.KEPT:
                champion = candidate
                judge.observer.on_champion(champion, row)
    return champion


def evaluate(
    judge: Judge,
    candidate: Candidate,
    champion: Candidate,
    run: RunFolder,
    ledger: Ledger,
    started: float,
    spent: Spent | None = None,
) -> Row:
    """Judges one candidate and records all that was found out, and what was spent on a language model for it."""
    began = time.monotonic()
    run.record(candidate, judge.variants)
    scratch = run.scratch_of(candidate.id)
    verdict = judge.evaluate(candidate, champion, scratch)
    run.seal.check(thoroughly=verdict.status is Status.KEPT)
    run.record_verdict(candidate, verdict)
    row = to_row(candidate, verdict, time.monotonic() - began, time.monotonic() - started, spent)
    ledger.append(row)
    judge.observer.on_row(row)
    return row


def untimed(run: RunFolder, ledger: Ledger, judge: Judge) -> list[Candidate]:
    """What waits to be timed, of the ops that are searched, oldest first; nothing where it cannot be."""
    if not judge.target.measures:
        return []
    return [run.load(row.id) for row in unmeasured(ledger.rows) if row.op in judge.settings.ops]


def start(judge: Judge, run: RunFolder, ledger: Ledger, started: float) -> tuple[Candidate, Candidate]:
    """The seed, shown to be sound, and the champion to begin with: the ledger's, in a new run the seed."""
    seed = seed_candidate(judge.variants, judge.settings.io, judge.model.layout)
    if ledger.rows and ledger.rows[0].id != seed.id:
        changed = f"the ops, their {PLAIN} kernels or the model's layout have changed since this search began"
        raise UsageError(f"{run.path}: {changed}; start another")
    best = ledger.champion()
    champion = run.load(best.id) if best else seed
    for recorded in (champion, *untimed(run, ledger, judge)):
        same_sources(recorded, judge, run)
    judge.measure_seed(seed, tuple(op for op in judge.settings.ops if op in OPS))
    judge.open(champion, tuple(op for op in judge.settings.ops if op in OPS))
    in_engine = bool(ledger.rows) and ledger.rows[0].stage is Stage.ENGINE
    engine = judge.check_engine(seed) if judge.target.measures and not in_engine else None
    if not ledger.rows:
        run.record(seed, judge.variants)
        ledger.append(seed_row(seed, engine, time.monotonic() - started))
        judge.observer.on_row(ledger.rows[0])
    judge.observer.on_champion(champion, best or ledger.rows[0])
    return seed, champion


def same_sources(candidate: Candidate, judge: Judge, run: RunFolder) -> None:
    """UsageError when a recorded candidate's kernels are not those in the folder of kernels any more."""
    named = candidate.configuration.kernels.items()
    gone = any(spec.variant not in judge.variants.get(op, {}) for op, spec in named)
    if gone or identify(candidate.configuration, judge.variants) != candidate.id:
        raise UsageError(
            f"{run.path}: a kernel of candidate {candidate.id} has changed or is gone; start another search"
        )


def searchable(settings: SearchSettings, target: Target) -> tuple[str, ...]:
    """What the search may change: an I/O policy and a layout only where they can be timed. UsageError when that leaves
    nothing."""
    parts = tuple(part for part in settings.ops if target.measures or part not in ENGINE_PARTS)
    if not parts:
        asked = " or ".join({IO: "an I/O policy"}.get(part, "a layout") for part in settings.ops)
        raise UsageError(
            f"op={','.join(settings.ops)} with target={target.name}: {asked} can only be timed, on {target.elsewhere}"
        )
    return parts


def seed_candidate(
    variants: Mapping[str, Mapping[str, Variant]], io: Mapping[str, int | str], layout: Layout | None = None
) -> Candidate:
    """The configuration that a search starts from: the plain kernels, an I/O policy, and the model's layout."""
    kernels = {op: KernelSpec(PLAIN, Choice.defaults(of_op[PLAIN]).tunables) for op, of_op in variants.items()}
    configuration = Configuration(kernels, io, layout)
    identity = identify(configuration, variants)
    return Candidate(identity, "", "seed", "the plain kernels", configuration, "")


def summarise(
    rows: list[Row],
    settings: SearchSettings,
    target: Target,
    confirmed: Confirmed | None,
    interrupted: bool,
    seconds: float,
) -> Summary:
    """The summary of a search, the rows of an earlier part that it resumed included."""
    kept = [row for row in rows if row.status is Status.KEPT]
    waiting = len(unmeasured(rows))
    gain = headline(confirmed, settings.ops) if confirmed else None
    return Summary(
        run=settings.run,
        evaluated=len(latest(rows)) - 1,
        kept=len(kept) - 1,
        unmeasured=waiting,
        champion=kept[-1].id,
        speedup=gain.value if gain else None,
        speedup_low=gain.low if gain else None,
        confirmed=confirmed,
        interrupted=interrupted,
        next=go_on(settings, target) if interrupted or waiting else "",
        seconds=seconds,
    )


def go_on(settings: SearchSettings, target: Target) -> str:
    """The command that goes on with a search, and where."""
    where = f" on {target.elsewhere}" if target.elsewhere else ""
    return f"nightforge search --resume run={settings.run}{where}"

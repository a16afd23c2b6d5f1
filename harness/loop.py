"""The search: propose, build, verify, measure, keep."""

import time
from collections.abc import Mapping
from pathlib import Path

from optuna.exceptions import StorageInternalError

from baseline.errors import UsageError
from baseline.targets.cpu import missing_features
from baseline.variant import Choice, Variant, list_variants
from harness.candidate import Candidate, Configuration, KernelSpec, Stage, Status, identify
from harness.confirm import Confirmed, Summary, confirm, headline
from harness.judge import Judge
from harness.ledger import Ledger, Row
from harness.progress import Observer, Silent
from harness.propose.base import History, Proposer
from harness.propose.mutate import Mutate
from harness.rows import seed_row, to_row
from harness.run_folder import RunFolder
from harness.settings import OPS, SearchSettings
from harness.study import Study

PLAIN = "plain"  # the variant of each op that a search starts from
SEEDS_APART = 1000  # between the check seeds of two candidates: more than the trials of one


def search(settings: SearchSettings, observer: Observer | None = None) -> Summary:
    """Searches until the time, the candidates or the ideas run out, then confirms the champion.

    Ctrl-C ends it cleanly, with what the ledger holds and without a confirmation. Raises UsageError for a run folder
    that cannot be used, a packed model or a golden record that is none, or no compiler; CheckError when one of them
    is damaged, the seed is not sound, or the champion does not confirm.
    """
    started = time.monotonic()
    observer = observer or Silent()
    variants = usable_variants(settings)
    judge = Judge(settings, variants, observer, settings.run / "scratch")
    run = RunFolder(settings)
    with Ledger(run.ledger) as ledger:
        interrupted, confirmed = False, None
        try:
            seed, champion = start(judge, run, ledger, started)
            study = Study(run.study, settings.seed)
            study.recover(ledger.rows)
            proposer = Mutate(study, variants, settings.ops)
            champion = climb(judge, proposer, seed, champion, run, ledger, started)
            observer.on_stage(champion, Stage.CONFIRM)
            confirmed = confirm(judge, champion, seed, run.scratch)
        except StorageInternalError as error:  # SQLite's: a full disk, for one
            raise UsageError(f"{run.study}: {error}") from None
        except KeyboardInterrupt:
            if not ledger.rows:
                raise
            interrupted = True
        summary = summarise(ledger.rows, run.path, settings, confirmed, interrupted, time.monotonic() - started)
    run.write("summary.json", summary.to_json())
    return summary


def climb(
    judge: Judge,
    proposer: Proposer,
    seed: Candidate,
    champion: Candidate,
    run: RunFolder,
    ledger: Ledger,
    started: float,
) -> Candidate:
    """The loop itself: returns the last champion when the time, the candidates or the ideas have run out."""
    settings, judged = judge.settings, 0
    while time.monotonic() - started < 60 * settings.minutes and judged != settings.candidates:
        candidate = proposer.propose(History(seed, champion, ledger.rows))
        if candidate is None:
            break
        began = time.monotonic()
        folder = run.record(candidate, judge.variants)
        verdict = judge.evaluate(candidate, champion, folder, settings.seed + SEEDS_APART * len(ledger.rows))
        run.record_verdict(candidate, verdict)
        row = to_row(candidate, verdict, time.monotonic() - began, time.monotonic() - started)
        ledger.append(row)
        proposer.observe(candidate, row)
        judge.observer.on_row(row)
        judged += 1
        if row.status is Status.KEPT:
            champion = candidate
            judge.observer.on_champion(champion, row)
    return champion


def start(judge: Judge, run: RunFolder, ledger: Ledger, started: float) -> tuple[Candidate, Candidate]:
    """The seed, shown to be sound, and the champion to begin with: the ledger's, in a new run the seed."""
    seed = seed_candidate(judge.variants, judge.settings.io)
    if ledger.rows and ledger.rows[0].id != seed.id:
        raise UsageError(f"{run.path}: the {PLAIN} kernels have changed since this search began; start another")
    judge.measure_seed(seed, tuple(op for op in judge.settings.ops if op in OPS))
    if not ledger.rows:
        run.record(seed, judge.variants)
        engine = judge.check_engine(seed)
        ledger.append(seed_row(seed, engine, time.monotonic() - started))
        judge.observer.on_row(ledger.rows[0])
    best = ledger.champion() or ledger.rows[0]
    champion = run.load(best.id)
    named = champion.configuration.kernels.items()
    gone = any(spec.variant not in judge.variants[op] for op, spec in named)
    if gone or identify(champion.configuration, judge.variants) != champion.id:
        raise UsageError(f"{run.path}: a kernel of champion {champion.id} has changed or is gone; start another search")
    judge.observer.on_champion(champion, best)
    return seed, champion


def usable_variants(settings: SearchSettings) -> dict[str, dict[str, Variant]]:
    """The variants that this machine can build, by op and name. UsageError when an op has no plain one."""
    usable: dict[str, dict[str, Variant]] = {}
    for op in OPS:
        listed = list_variants(settings.kernels, op, settings.target)
        usable[op] = {variant.name: variant for variant in listed if not missing_features(variant)}
        if PLAIN not in usable[op]:
            raise UsageError(f"{settings.kernels / op / settings.target} has no usable variant named {PLAIN}")
    return usable


def seed_candidate(variants: dict[str, dict[str, Variant]], io: Mapping[str, int | str]) -> Candidate:
    """The configuration that a search starts from: the plain kernels and an I/O policy."""
    kernels = {op: KernelSpec(PLAIN, Choice.defaults(of_op[PLAIN]).tunables) for op, of_op in variants.items()}
    configuration = Configuration(kernels, io)
    identity = identify(configuration, variants)
    return Candidate(identity, "", "seed", "the plain kernels", configuration, "")


def summarise(
    rows: list[Row],
    run: Path,
    settings: SearchSettings,
    confirmed: Confirmed | None,
    interrupted: bool,
    seconds: float,
) -> Summary:
    """The summary of a search, the rows of an earlier part that it resumed included."""
    kept = [row for row in rows if row.status is Status.KEPT]
    gain = headline(confirmed, settings.ops) if confirmed else None
    return Summary(
        run=run,
        evaluated=len(rows) - 1,
        kept=len(kept) - 1,
        champion=kept[-1].id,
        speedup=gain.value if gain else None,
        speedup_low=gain.low if gain else None,
        confirmed=confirmed,
        interrupted=interrupted,
        seconds=seconds,
    )

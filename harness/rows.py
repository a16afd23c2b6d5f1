"""What the ledger says about a candidate, from what the judge found out."""

import math

from harness.candidate import ENGINE_PARTS, Candidate, EngineResult, Speedup, Stage, Status, changed_part
from harness.judge import Verdict
from harness.ledger import Row
from harness.propose.claude.event import Spent

NOT_MEASURED = Speedup(math.nan, math.nan, math.nan)


def to_row(candidate: Candidate, verdict: Verdict, seconds: float, elapsed_s: float, spent: Spent | None = None) -> Row:
    """The row of a judged candidate. The speed-up of an I/O policy or a layout is the engine's. `spent`: on a language
    model."""
    spent = spent or Spent("")
    alone = verdict.benched.speedup if verdict.benched else None
    engine = verdict.engine.speedup if verdict.engine else None
    deciding = (engine if candidate.changed in ENGINE_PARTS else alone) or NOT_MEASURED
    whole = engine or NOT_MEASURED
    variant, tunables = changed_part(candidate)
    return Row(
        id=candidate.id,
        parent=candidate.parent,
        proposer=candidate.proposer,
        status=verdict.status,
        stage=verdict.stage,
        reason=verdict.failure.reason if verdict.failure else "",
        op=candidate.changed,
        variant=variant,
        tunables=tunables,
        code=loaded_code(candidate, verdict),
        speedup=deciding.value,
        speedup_low=deciding.low,
        speedup_high=deciding.high,
        engine_speedup=whole.value,
        engine_speedup_low=whole.low,
        engine_speedup_high=whole.high,
        build_s=verdict.built.seconds if verdict.built else 0.0,
        check_s=verdict.checked.seconds if verdict.checked else 0.0,
        bench_s=verdict.benched.seconds if verdict.benched else 0.0,
        engine_s=verdict.engine.seconds if verdict.engine else 0.0,
        seconds=seconds,
        elapsed_s=elapsed_s,
        model=spent.model,
        input_tokens=spent.input,
        cached_tokens=spent.cached,
        output_tokens=spent.output,
        usd=spent.usd,
        hypothesis=candidate.hypothesis,
    )


def loaded_code(candidate: Candidate, verdict: Verdict) -> str:
    """The hash of the last code of a candidate that a process loaded; '' where none did."""
    dispatched = verdict.engine.dispatched if verdict.engine else None
    checked = verdict.checked.code if verdict.checked else ""
    return dispatched.code.get(candidate.changed, checked) if dispatched else checked


def seed_row(seed: Candidate, engine: EngineResult | None, seconds: float) -> Row:
    """The first row of a ledger: the seed is the first champion, and everything is measured against it.

    `engine` is None where nothing is measured: the seed was not in the engine yet, which its stage says.
    """
    return Row(
        id=seed.id,
        parent="",
        proposer=seed.proposer,
        status=Status.KEPT,
        stage=Stage.ENGINE if engine else Stage.CHECK,
        reason="",
        op="",
        variant="",
        tunables="",
        code="",
        speedup=1.0,
        speedup_low=1.0,
        speedup_high=1.0,
        engine_speedup=1.0,
        engine_speedup_low=1.0,
        engine_speedup_high=1.0,
        build_s=0.0,
        check_s=0.0,
        bench_s=0.0,
        engine_s=engine.seconds if engine else 0.0,
        seconds=seconds,
        elapsed_s=seconds,
        model="",
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        usd=0.0,
        hypothesis=seed.hypothesis,
    )

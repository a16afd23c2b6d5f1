"""The confirmation: the champion against the seed again, in fresh processes. Only these figures are reported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from baseline.errors import CheckError
from harness.cache_state import CacheUses
from harness.candidate import Candidate, Speedup
from harness.contest import ContestPlan
from harness.costs import Costs
from harness.judge import Judge
from harness.measure import EnginePlan
from harness.model_use import ModelUse

BENCH = ContestPlan(budget_s=2.0, apart=True)
# The whole golden record takes minutes on a slow machine.
ENGINE = EnginePlan(blocks=(12, 30), tokens=16, apart=True, timeout_s=1800.0)


@dataclass(frozen=True)
class Confirmed:
    """The champion against the seed: each changed op alone, and decode tokens/s of the whole engine.

    apart: the two engines were processes of their own; False where memory holds only one. disturbed: blocks, of all
    that count, during which the machine was, by what disturbed it. decode_gains: no op changed, so decode must gain.
    """

    ops: Mapping[str, Speedup]
    engine: Speedup
    seed_tokens_per_s: float
    champion_tokens_per_s: float
    max_kl: float
    cache_use: CacheUses | None = None
    apart: bool = False
    disturbed: Mapping[str, int] = field(default_factory=dict)
    decode_gains: bool = False

    @property
    def refuted(self) -> str:
        """Which of the gains that a search found are not there in fresh processes; '' when all are. The first
        measurement of a winner is the luckiest one."""
        lost = [f"{op} {found.text()}" for op, found in self.ops.items() if found.low <= 1]
        if self.engine.high < 1 or (self.decode_gains and self.engine.low <= 1):
            lost.append(f"decode {self.engine.text()}")
        return ", ".join(lost)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Confirmed":
        """What `asdict` made of one. KeyError or TypeError when `record` has another form."""
        ops = {op: Speedup.from_json(speedup) for op, speedup in record["ops"].items()}
        use = record["cache_use"] and CacheUses.from_json(record["cache_use"])
        return cls(**{**record, "ops": ops, "engine": Speedup.from_json(record["engine"]), "cache_use": use})


@dataclass(frozen=True)
class Summary:
    """What a search found. The speed-ups are over the seed (the plain kernels).

    evaluated: candidates with a ledger row, the seed left out; kept: those of them that became champion.
    speedup: of the expert op that gained least (of all changed ops when no expert op was searched), at the bench
        shapes; 1.0 when nothing was kept. None, as `confirmed` is, when the search was interrupted before its
        confirmation, or could not measure.
    unmeasured: candidates that are right and clean and wait for a machine that can time them.
    costs: where its time went (`harness.costs`). noise: the A/A runs (`harness.aa`).
    language_model: what was taken of it, `ModelUse()` where none was asked.
    next: the command that goes on with the search, and where; '' when it is complete.
    """

    run: Path
    evaluated: int
    kept: int
    unmeasured: int
    champion: str
    speedup: float | None
    speedup_low: float | None
    confirmed: Confirmed | None
    interrupted: bool
    next: str
    seconds: float
    costs: Costs = field(default_factory=Costs)
    noise: Sequence[Mapping[str, Any]] = ()
    language_model: ModelUse = field(default_factory=ModelUse)

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types; cost_usd and usd_per_percent: dollars, in all and for each confirmed 1 %."""
        took = self.language_model
        dollars = {"cost_usd": took.usd, "usd_per_percent": took.usd_per_percent(self.speedup)}
        tokens = asdict(took) | {"cached_share": took.cached_share}
        return {**asdict(self), "run": str(self.run), "language_model": tokens, **dollars}


def confirm(judge: Judge, champion: Candidate, seed: Candidate, folder: Path) -> Confirmed:
    """Benches each op that the champion changed, and runs the whole golden record and a decode in the engine.

    CheckError when the champion fails, or answers wrongly, this time; that a gain is gone is in what it returns.
    """
    ops, disturbed = dict[str, Speedup](), Counter[str]()
    for op, spec in champion.configuration.kernels.items():
        if spec == seed.configuration.kernels[op]:
            continue
        built, libraries = judge.build(op, spec)
        if built.failure is not None:
            raise CheckError(f"champion {champion.id} no longer builds: {op}/{spec.variant}")
        benched = judge.bench(op, seed.configuration, libraries[-1], folder, BENCH)
        if benched.speedup is None or benched.failure is not None:
            raise CheckError(f"champion {champion.id} did not confirm: {op} {_reason(benched.failure)}")
        ops[op] = benched.speedup
        disturbed.update(benched.disturbed)
    result = judge.engine(
        champion.configuration, seed.configuration, folder, judge.golden, replace(ENGINE, state=judge.settings.state)
    )
    if result.failure is not None or result.speedup is None:
        raise CheckError(f"champion {champion.id} did not confirm: engine {_reason(result.failure)}")
    speeds = [float(np.median(arm)) for arm in (result.champion_tokens_per_s, result.candidate_tokens_per_s)]
    disturbed.update(result.disturbed)
    where = result.max_kl, result.cache_use, result.apart, dict(disturbed), champion.id != seed.id and not ops
    return Confirmed(ops, result.speedup, speeds[0], speeds[1], *where)


def headline(confirmed: Confirmed, searched: tuple[str, ...]) -> Speedup:
    """The speed-up to report: of the expert op that gained least, 1.0 for one that did not change."""
    experts = [op for op in searched if op.startswith("expert_")] or [*confirmed.ops]
    gains = [confirmed.ops.get(op, Speedup(1.0, 1.0, 1.0)) for op in experts]
    return min(gains, key=lambda gain: gain.value, default=Speedup(1.0, 1.0, 1.0))


def _reason(failure: Any) -> str:
    return failure.reason if failure else "was not measured"

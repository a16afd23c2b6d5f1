"""The confirmation: the champion against the seed again, in fresh processes. Only these figures are reported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from baseline.errors import CheckError
from harness.cache_state import CacheUse
from harness.candidate import Candidate, Speedup
from harness.contest import ContestPlan
from harness.judge import Judge
from harness.keep import MOST_BLOCKS
from harness.measure import EnginePlan

BENCH = ContestPlan(blocks=(12, MOST_BLOCKS), budget_s=4.0)
# The whole golden record takes minutes on a slow machine.
ENGINE = EnginePlan(blocks=(12, 30), tokens=16, apart=True, timeout_s=1800.0)


@dataclass(frozen=True)
class Confirmed:
    """The champion against the seed: each changed op alone, and decode tokens/s of the whole engine.

    apart: the two engines were processes of their own; False where memory holds only one. disturbed: blocks, of all
    that count, during which the machine was, by what disturbed it.
    """

    ops: Mapping[str, Speedup]
    engine: Speedup
    seed_tokens_per_s: float
    champion_tokens_per_s: float
    max_kl: float
    cache_use: CacheUse | None = None
    apart: bool = False
    disturbed: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Confirmed":
        """What `asdict` made of one. KeyError or TypeError when `record` has another form."""
        ops = {op: Speedup.from_json(speedup) for op, speedup in record["ops"].items()}
        use = record["cache_use"] and CacheUse(**record["cache_use"])
        return cls(**{**record, "ops": ops, "engine": Speedup.from_json(record["engine"]), "cache_use": use})


@dataclass(frozen=True)
class Summary:
    """What a search found. The speed-ups are over the seed (the plain kernels).

    evaluated: candidates with a ledger row, the seed left out; kept: those of them that became champion.
    speedup: of the expert op that gained least (of all changed ops when no expert op was searched), at the bench
        shapes; 1.0 when nothing was kept. None, as `confirmed` is, when the search was interrupted before its
        confirmation, or could not measure.
    unmeasured: candidates that are right and clean and wait for a machine that can time them.
    costs: seconds by what they were spent on (`harness.costs`). noise: the A/A runs (`harness.aa`).
    cost_usd: of the language model that was asked; nan where it has no price.
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
    costs: Mapping[str, float] = field(default_factory=dict)
    noise: Sequence[Mapping[str, Any]] = ()
    cost_usd: float = 0.0

    @property
    def usd_per_percent(self) -> float | None:
        """Dollars for each confirmed 1 % of `speedup`; None where nothing was gained."""
        gain = 100 * ((self.speedup or 1.0) - 1)
        return self.cost_usd / gain if gain > 0 else None

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {**asdict(self), "run": str(self.run), "usd_per_percent": self.usd_per_percent}


def confirm(judge: Judge, champion: Candidate, seed: Candidate, folder: Path) -> Confirmed:
    """Benches each op that the champion changed, and runs the whole golden record and a decode in the engine.

    CheckError when the champion fails, or answers wrongly, this time.
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
    where = result.max_kl, result.cache_use, result.apart, dict(disturbed)
    return Confirmed(ops, result.speedup, speeds[0], speeds[1], *where)


def headline(confirmed: Confirmed, searched: tuple[str, ...]) -> Speedup:
    """The speed-up to report: of the expert op that gained least, 1.0 for one that did not change."""
    experts = [op for op in searched if op.startswith("expert_")] or [*confirmed.ops]
    gains = [confirmed.ops.get(op, Speedup(1.0, 1.0, 1.0)) for op in experts]
    return min(gains, key=lambda gain: gain.value, default=Speedup(1.0, 1.0, 1.0))


def _reason(failure: Any) -> str:
    return failure.reason if failure else "was not measured"

"""The confirmation: the champion against the seed again, in fresh processes. Only these figures are reported."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from baseline.errors import CheckError
from harness.cache_state import CacheUses
from harness.candidate import DECODE, Candidate, Speedup
from harness.confirmation import Arms, Samples
from harness.contest import ContestPlan
from harness.control import Control
from harness.costs import Costs
from harness.credit import Credit
from harness.judge import Judge
from harness.measure import EnginePlan
from harness.model_use import ModelUse

SAME = 1e-9  # of a figure: what two machines may make of the same samples
BENCH = ContestPlan(budget_s=2.0, apart=True)
# The whole golden record takes minutes on a slow machine.
ENGINE = EnginePlan(blocks=(12, 30), tokens=16, apart=True, timeout_s=1800.0)


@dataclass(frozen=True)
class Confirmed:
    """The champion against the seed: each changed op alone, and decode tokens/s of the whole engine.

    apart: the two engines were processes of their own; False where memory holds only one. disturbed: blocks, of all
    that count, during which the machine was, by what disturbed it. decode_gains: no op changed, so decode must gain.
    samples: what the figures are made of; they have a file of their own.
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
    samples: Samples | None = None

    @classmethod
    def of(cls, samples: Samples, **found: Any) -> "Confirmed":
        """The figures of `samples`, beside what else was found."""
        return cls(samples.ops(), samples.decode(), *samples.speeds(), samples=samples, **found)

    def differing(self, samples: Samples) -> str:
        """The first figure that is not what `samples` make of it, in one line; '' when all are. Raises as
        `Samples.ops`."""
        recorded, made = self._figures(), Confirmed.of(samples, max_kl=self.max_kl)._figures()
        for name in {**recorded, **made}:
            then, now = recorded.get(name, math.nan), made.get(name, math.nan)
            if not math.isclose(then, now, rel_tol=SAME):
                return f"{name} is {then:.6g}, and {now:.6g} by its samples"
        return ""

    def _figures(self) -> dict[str, float]:
        """All that follows from samples; what is missing is no number."""
        speedups = {**self.ops, DECODE: self.engine}
        bounds = {
            f"the {part} of {what}": figure
            for what, found in speedups.items()
            for part, figure in asdict(found).items()
        }
        return bounds | {"the seed's tokens/s": self.seed_tokens_per_s, "tokens/s": self.champion_tokens_per_s}

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
        """What `to_json` made of one. LookupError, ValueError or TypeError when `record` has another form."""
        ops = {op: Speedup.from_json(speedup) for op, speedup in record["ops"].items()}
        use = record["cache_use"] and CacheUses.from_json(record["cache_use"])
        speeds = {name: float(record[name]) for name in ("seed_tokens_per_s", "champion_tokens_per_s")}
        return cls(**{**record, **speeds, "ops": ops, "engine": Speedup.from_json(record["engine"]), "cache_use": use})

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON types, without their samples."""
        fields = asdict(self)
        del fields["samples"]
        return fields


@dataclass(frozen=True)
class Summary:
    """What a search found. The speed-ups are over the seed (the plain kernels).

    evaluated: candidates with a ledger row, the seed left out; kept: those of them that became champion.
    speedup: of the expert op that gained least (of all changed ops when no expert op was searched), at the bench
        shapes; 1.0 when nothing was kept. None, as `confirmed` is, when the search was interrupted before its
        confirmation, or could not measure.
    unmeasured: candidates that are right and clean and wait for a machine that can time them.
    costs: where its time went (`harness.costs`). noise: the A/A runs (`harness.aa`).
    language_model: what was taken of it, `ModelUse()` where none was asked; models: what each has earned.
    control: what the search is to be held against (`harness.control`).
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
    models: Sequence[Credit] = ()
    control: Sequence[Control] = ()

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types; cost_usd and usd_per_percent: dollars, in all and for each confirmed 1 %."""
        took = self.language_model
        dollars = {"cost_usd": took.usd, "usd_per_percent": took.usd_per_percent(self.speedup)}
        tokens = asdict(took) | {"cached_share": took.cached_share}
        confirmed = self.confirmed and self.confirmed.to_json()
        control = [control.to_json() for control in self.control]
        own = {"run": str(self.run), "confirmed": confirmed, "language_model": tokens, "control": control}
        return {**asdict(self), **own, **dollars}


def confirm(judge: Judge, champion: Candidate, seed: Candidate, folder: Path) -> Confirmed:
    """Benches each op that the champion changed, and runs the whole golden record and a decode in the engine.

    CheckError when the champion fails, or answers wrongly, this time; that a gain is gone is in what it returns.
    """
    launch_s, disturbed = dict[str, Arms](), Counter[str]()
    for op, spec in champion.configuration.kernels.items():
        if spec == seed.configuration.kernels[op]:
            continue
        built, libraries = judge.build(op, spec)
        if built.failure is not None:
            raise CheckError(f"champion {champion.id} no longer builds: {op}/{spec.variant}")
        benched = judge.bench(op, seed.configuration, libraries[-1], folder, BENCH)
        if benched.speedup is None or benched.failure is not None:
            raise CheckError(f"champion {champion.id} did not confirm: {op} {_reason(benched.failure)}")
        launch_s[op] = Arms(benched.champion_s, benched.candidate_s)
        disturbed.update(benched.disturbed)
    result = judge.engine(
        champion.configuration, seed.configuration, folder, judge.golden, replace(ENGINE, state=judge.settings.state)
    )
    if result.failure is not None or result.speedup is None:
        raise CheckError(f"champion {champion.id} did not confirm: engine {_reason(result.failure)}")
    disturbed.update(result.disturbed)
    tokens_per_s = Arms(result.champion_tokens_per_s, result.candidate_tokens_per_s)
    return Confirmed.of(
        Samples(champion.id, launch_s, tokens_per_s),
        max_kl=result.max_kl,
        cache_use=result.cache_use,
        apart=result.apart,
        disturbed=dict(disturbed),
        decode_gains=champion.id != seed.id and not launch_s,
    )


def headline(confirmed: Confirmed, searched: tuple[str, ...]) -> Speedup:
    """The speed-up to report: of the expert op that gained least, 1.0 for one that did not change."""
    experts = [op for op in searched if op.startswith("expert_")] or [*confirmed.ops]
    gains = [confirmed.ops.get(op, Speedup(1.0, 1.0, 1.0)) for op in experts]
    return min(gains, key=lambda gain: gain.value, default=Speedup(1.0, 1.0, 1.0))


def _reason(failure: Any) -> str:
    return failure.reason if failure else "was not measured"

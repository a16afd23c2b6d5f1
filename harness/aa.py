"""The A/A runs of a search: the champion against itself, which says what gains this machine can show at the moment."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.candidate import Benched
from harness.contest import ContestPlan
from harness.keep import MOST_BLOCKS, log_ratios
from harness.noise import Noise, detectable, drifted, noise_of

PLAN = ContestPlan(blocks=(20, 20))
APART = 10  # contests between two A/A runs at least: one takes as long as some of them


@dataclass(frozen=True)
class SelfContest:
    """An A/A run. `gain` (0.03 is 3 %) is the smallest that would be shown; `value` what the run made of none."""

    op: str
    variant: str
    gain: float
    value: float
    noise: Noise

    def line(self) -> str:
        """For people."""
        spread, least = f"{100 * self.noise.spread:.1f} %", f"{100 * self.gain:.1f} %"
        return f"A/A run of {self.op} {self.variant}: {self.value:.3f}x, spread {spread}; gains of {least} can be shown"


@dataclass
class Watch:
    """What the machine can show, and whether that has changed.

    `contest` lets the champion's kernel of an op meet itself under a plan. `min_gain` is what a search asks for.
    """

    contest: Callable[[str, ContestPlan], tuple[str, Benched]]
    min_gain: float
    runs: list[SelfContest] = field(default_factory=list)
    _last: dict[tuple[str, str], Noise] = field(default_factory=dict)
    _since: int = 0

    @property
    def least_gain(self) -> float:
        """The least gain that is kept: what was asked for, or what this machine can show if that is more."""
        shown = self.runs[-1].gain if self.runs else 0.0
        return max(self.min_gain, shown) if math.isfinite(shown) else self.min_gain

    def run(self, op: str) -> SelfContest:
        """Measures what can be shown now."""
        variant, benched = self.contest(op, PLAN)
        ratios = log_ratios(benched.champion_s, benched.candidate_s)
        noise = noise_of(benched.champion_s, benched.candidate_s)
        value = benched.speedup.value if benched.speedup else math.nan
        self.runs.append(SelfContest(op, variant, detectable(ratios, MOST_BLOCKS), value, noise))
        self._since = 0
        return self.runs[-1]

    def see(self, op: str, variant: str, benched: Benched) -> SelfContest | None:
        """Looks at a contest of the champion's kernel `variant`; another A/A run if the machine has changed."""
        if not benched.ran:
            return None
        now = noise_of(benched.champion_s, benched.candidate_s)
        before = self._last.get((op, variant))
        self._last[op, variant] = now
        self._since += 1
        if before is None or self._since < APART or not drifted(before, now):
            return None
        return self.run(op)

    def to_json(self) -> Sequence[dict[str, Any]]:
        """The A/A runs."""
        return [asdict(run) for run in self.runs]

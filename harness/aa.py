"""The A/A runs of a search: the champion against itself, which says what gains this machine can show at the moment."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.blocks import fitting
from harness.candidate import DECODE
from harness.contest import ContestPlan
from harness.keep import LEAST_BLOCKS, log_ratios, speedup
from harness.measure import EnginePlan
from harness.noise import Noise, detectable, drifted, noise_of

# Short, so that a search of all ops for three minutes takes some ten seconds for those that open it. The number of
# blocks is fixed: one that ended with the noise of the moment would flatter the machine.
PLAN = ContestPlan(blocks=(LEAST_BLOCKS, LEAST_BLOCKS))
DECODE_PLAN = EnginePlan(blocks=(LEAST_BLOCKS, LEAST_BLOCKS))
APART = 5  # contests of an op between two A/A runs of it at least: one takes as long as a short one of them
ROOM = 2  # times the blocks of an A/A run in the budget of a contest: another champion, whose gains show better


@dataclass(frozen=True)
class Times:
    """Seconds of both arms' repetitions (a launch, a token), and of a block with all that is done between them."""

    champion_s: Sequence[float]
    candidate_s: Sequence[float]
    block_s: float


@dataclass(frozen=True)
class SelfContest:
    """An A/A run of an op's variant, or of DECODE with the champion of an id.

    gain (0.03 is 3 %): the smallest that a contest would show in one process, in the `blocks` that its budget has room
    for; value: what the run made of none.
    """

    op: str
    variant: str
    gain: float
    blocks: int
    value: float
    noise: Noise

    def line(self) -> str:
        """For people."""
        spread, least = f"{100 * self.noise.spread:.1f} %", f"{100 * self.gain:.1f} %"
        shown = f"gains of {least} can be shown, in {self.blocks} blocks"
        return f"A/A run of {self.op} {self.variant}: {self.value:.3f}x, spread {spread}; {shown}"


@dataclass
class Watch:
    """What the machine can show, by op and for DECODE, and whether that has changed.

    `bench` lets the champion's kernel of an op meet itself under a plan, `decode` the whole champion: the variant or
    the id, and the times.
    """

    bench: Callable[[str, ContestPlan], tuple[str, Times]]
    decode: Callable[[EnginePlan], tuple[str, Times]]
    runs: list[SelfContest] = field(default_factory=list)
    _since: Counter[str] = field(default_factory=Counter)

    def latest(self, op: str) -> SelfContest | None:
        """The last A/A run of an op, or of DECODE."""
        return next((run for run in reversed(self.runs) if run.op == op), None)

    def least_gain(self, op: str) -> float:
        """The least gain that this machine can show of an op, or of DECODE; 0 where that is not known."""
        run = self.latest(op)
        return run.gain if run and math.isfinite(run.gain) else 0.0

    def run(self, op: str) -> SelfContest:
        """Measures what can be shown now of an op, or of DECODE."""
        variant, times = self.decode(DECODE_PLAN) if op == DECODE else self.bench(op, PLAN)
        ratios, blocks = log_ratios(times.champion_s, times.candidate_s), _room(op, times)
        noise, value = noise_of(times.champion_s, times.candidate_s), speedup(ratios).value
        self.runs.append(SelfContest(op, variant, detectable(ratios, blocks), blocks, value, noise))
        self._since[op] = 0
        return self.runs[-1]

    def see(self, op: str, variant: str, times: Times) -> SelfContest | None:
        """Looks at a contest of the champion `variant`, if it was timed; another A/A run if the machine is no longer
        that of the last one, or if another champion leaves room for more blocks."""
        run = self.latest(op)
        if run is None or not times.champion_s:
            return None
        self._since[op] += 1
        now, same = noise_of(times.champion_s, times.candidate_s), run.variant == variant
        before = run.noise if same else replace(run.noise, level_s=now.level_s)  # another's times say nothing
        moved = self._since[op] >= APART and drifted(before, now)
        outgrown = not same and _room(op, times) >= ROOM * run.blocks
        return self.run(op) if moved or outgrown else None

    def to_json(self) -> Sequence[dict[str, Any]]:
        """The A/A runs."""
        return [asdict(run) for run in self.runs]


def _room(op: str, times: Times) -> int:
    """How many blocks a contest's budget has room for."""
    plan = EnginePlan() if op == DECODE else ContestPlan()
    return fitting(plan.blocks, plan.budget_s, times.block_s)

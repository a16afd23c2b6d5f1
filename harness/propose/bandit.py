"""A bandit: which kind of change is worth the next evaluation, by what each has brought so far."""

import math
from dataclasses import dataclass, field

FIRST = 0.3  # log speed-up that is expected of a kind that was never tried: every kind gets its turn
FAILED = math.log(0.5)  # what a candidate that does not build, or is wrong, counts for
WIDTH = 0.3  # log speed-ups: how far from its mean a kind that was tried once may still be


@dataclass
class Bandit:
    """Gains of each kind of change, as log speed-ups: UCB1 (Auer et al. 2002) with one observation of FIRST for all."""

    gains: dict[str, list[float]] = field(default_factory=dict)

    def observe(self, kind: str, gain: float) -> None:
        """Counts what a change of a kind brought."""
        self.gains.setdefault(kind, []).append(gain)

    def score(self, kind: str) -> float:
        """What a change of this kind may bring: its mean gain and a margin for what is not known of it."""
        gains = self.gains.get(kind, [])
        seen = sum(map(len, self.gains.values()))
        mean = (FIRST + sum(gains)) / (1 + len(gains))
        return mean + WIDTH * math.sqrt(math.log(1 + seen) / (1 + len(gains)))

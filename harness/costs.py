"""Where the time of a search went."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.ledger import Row

STAGES = ("build", "check", "bench", "engine")


@dataclass
class Laps:
    """Seconds of the parts of a search, each from the end of the one before."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def end(self, part: str) -> None:
        """Ends a part."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


def costs(laps: Laps, rows: Sequence[Row], waited_s: float) -> Mapping[str, float]:
    """Seconds by what they were spent on, of a search whose candidates are `rows`.

    `waited_s`: for builds that were begun before their candidate came up. Under "harness" is what no stage took:
    proposing, recording, choosing what comes next.
    """
    spent = {"opening": laps.seconds.get("opening", 0.0)}
    spent |= {stage: sum(getattr(row, f"{stage}_s") for row in rows) for stage in STAGES}
    spent["build"] += waited_s
    spent["confirmation"] = laps.seconds.get("confirmation", 0.0)
    spent["harness"] = laps.seconds.get("search", 0.0) - sum(spent[stage] for stage in STAGES)
    return spent


def line(spent: Mapping[str, float]) -> str:
    """For people."""
    total = sum(spent.values())
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items() if seconds > 0)
    return f"seconds: {parts} ({100 * spent['harness'] / max(total, 1e-9):.1f} % of all)"

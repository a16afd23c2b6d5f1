"""What each language model of a search has earned: its share of the gains that were confirmed, and what it took."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.candidate import Status
from harness.ledger import Row
from harness.model_use import ModelUse, model_use
from harness.propose.claude.call import Call
from harness.propose.claude.event import Event
from harness.study import objective


@dataclass(frozen=True)
class Credit:
    """candidates: those of the model that were judged; kept: those of them that became champion; gains: by op the
    speed-up that is the model's; took: in all, what came to nothing included."""

    model: str
    candidates: int
    kept: int
    gains: Mapping[str, float]
    took: ModelUse

    def line(self) -> str:
        """For people."""
        gains = ", ".join(f"{op} {gain:.2f}x" for op, gain in self.gains.items()) or "nothing"
        return (
            f"{self.model}: {self.candidates} candidates, {self.kept} kept; confirmed: {gains}; {self.took.text(None)}"
        )


def credited(
    rows: Sequence[Row], events: Sequence[Event], calls: Sequence[Call], confirmed: Mapping[str, float]
) -> list[Credit]:
    """Of each model that was asked. `confirmed`: the speed-up of each op over the plain kernel in fresh processes.

    The logarithm of an op's is shared out as the steps to its champion were measured, to who proposed each: a step that
    looked larger than it was costs all their part. What nobody confirmed is nobody's.
    """
    made = []
    for model in dict.fromkeys([*(call.model for call in calls), *(row.model for row in rows if row.model)]):
        own = [row for row in rows if row.model == model]
        took = model_use(own, (event for event in events if event.model == model))
        took = replace(took, calls=sum(call.model == model for call in calls))
        kept = sum(row.status is Status.KEPT for row in own)
        made.append(Credit(model, len(own), kept, dict(_gains(model, rows, confirmed)), took))
    return made


def _gains(model: str, rows: Sequence[Row], confirmed: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for op, speedup in confirmed.items():
        steps = [(row.model, objective(row) or 0.0) for row in rows if row.op == op and row.status is Status.KEPT]
        own = math.fsum(gain for proposed_by, gain in steps if proposed_by == model)
        if own:
            yield op, math.exp(math.log(speedup) * own / math.fsum(gain for _, gain in steps))

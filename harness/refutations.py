"""The refutation memory: what was tried before and lost, by others (`baseline.prior`) and in this run (its ledger)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from baseline.prior import ANY, Experiment, prior
from harness.candidate import Status
from harness.ledger import Row

HOPEFUL = (Status.KEPT, Status.UNMEASURED)  # what became of a candidate that refutes nothing
LOST = (Status.DISCARDED, Status.TOO_SLOW)  # of one that was right: its idea lost, and not only how it was written
CONDITION = "Changed condition:"  # in a hypothesis: what is different from where the idea lost
WORD = re.compile(r"[a-z_]+|\d+")


@dataclass(frozen=True)
class Refuted:
    """An idea that lost. `name`: its row in prior.tsv, or the candidate; `why` is '' where nobody knows."""

    name: str
    idea: str
    condition: str
    effect: str
    why: str

    def line(self) -> str:
        """For a prompt, or for who proposes it again."""
        why = f"; {self.why}" if self.why else ""
        return f"{self.name}: {self.idea} ({self.condition}): {self.effect}{why}"


def matching(op: str, target: str, rows: Sequence[Row] = ()) -> list[Refuted]:
    """What is known to have lost for an op, or for 'io', on a target: of others, then of this run's `rows`."""
    others = [_of_prior(experiment) for experiment in _refuted(op, target)]
    return others + [of_run(row) for row in rows if row.op == op and row.status not in HOPEFUL]


def repeats(idea: str, op: str, target: str, rows: Sequence[Row] = ()) -> Refuted | None:
    """The first refuted experiment of others that an idea's text repeats, else the last candidate among `rows`.

    It repeats an experiment when every word of one of the experiment's tags is the beginning of a word of the text: one
    that speaks of `fma` and of `split` repeats a row with the tag `fma split`, whatever else it says. It repeats a
    candidate that lost when both are the same words, numbers aside.
    """
    words = set(WORD.findall(idea.lower()))
    for experiment in _refuted(op, target):
        if any(all(_said(tag, words) for tag in tags) for tags in experiment.tags):
            return _of_prior(experiment)
    lost = (row for row in reversed(rows) if row.op == op and row.status in LOST)
    return next((of_run(row) for row in lost if _idea(row.hypothesis) == _idea(idea) != set()), None)


def turned_down(hypothesis: str, op: str, target: str, rows: Sequence[Row] = ()) -> str:
    """Why a proposal is refused, in one line that names what it repeats; '' when it is not, or when its hypothesis says
    what has changed since, after `CONDITION`."""
    if names_condition(hypothesis):
        return ""
    repeated = repeats(hypothesis, op, target, rows)
    return "" if repeated is None else objection(repeated)


def names_condition(hypothesis: str) -> bool:
    """Whether a hypothesis says what is different from where its idea lost."""
    return bool(hypothesis.partition(CONDITION)[2].strip())


def objection(repeated: Refuted) -> str:
    """What is said to who proposes `repeated` again, in one line."""
    return f"repeats {repeated.line()}. Say in the hypothesis what is different here, after '{CONDITION}'"


def of_run(row: Row) -> Refuted:
    """What a candidate of this run has refuted."""
    what = f"{row.variant} {row.tunables}".strip()
    return Refuted(row.id, f"{what}: {row.hypothesis}", "this run", row.status.value, row.reason)


def _refuted(op: str, target: str) -> list[Experiment]:
    return [e for e in prior() if e.verdict.refuted and op in e.area and e.target in (ANY, target)]


def _said(tag: str, words: set[str]) -> bool:
    """A number, or a word of a letter or two, stands for itself alone: 4 is not 4096, and k no kernel."""
    return tag in words if tag.isdigit() or len(tag) < 3 else any(word.startswith(tag) for word in words)


def _of_prior(experiment: Experiment) -> Refuted:
    condition = f"{experiment.machine}, {experiment.condition}"
    return Refuted(experiment.id, experiment.idea, condition, experiment.effect, experiment.why)


def _idea(text: str) -> set[str]:
    """The words of a hypothesis, without numbers and without the condition that has changed."""
    return {word for word in WORD.findall(text.partition(CONDITION)[0].lower()) if not word.isdigit()}

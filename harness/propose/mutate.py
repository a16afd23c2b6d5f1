"""The rule-based proposer: a child of the champion that changes one thing, suggested by Optuna."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import Trial

from baseline.variant import Choice, Variant
from harness.candidate import IO, Candidate, Configuration, KernelSpec, changed_part, identify
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.study import CANDIDATE, Study

VARIANT = "variant"  # the knob of an op that is not one of its variant's tunables
IO_SPACE: Mapping[str, tuple[int | str, ...]] = {
    "threads": (1, 2, 4, 8),
    "reads_per_expert": (1, 2, 4),
    "cache": ("os", "direct"),
    "schedule": ("graph", "eager"),
}
DRAWS = 4  # how often Optuna may suggest something already tried before the first untried move is taken


@dataclass(frozen=True)
class Move:
    """One change of a configuration: a knob of a part (an op or 'io') gets a value."""

    part: str
    knob: str
    value: int | str


def label(name: str, choices: Iterable[object]) -> str:
    """A parameter's name in the study. It lists the choices: Optuna refuses a name whose choices have changed, and a
    search may be resumed with another variant in the folder, or with other ops."""
    return f"{name}: {', '.join(map(str, choices))}"


class Mutate(Proposer):
    """First each op's other variants, then one change at a time, where Optuna expects a gain."""

    def __init__(self, study: Study, variants: Mapping[str, Mapping[str, Variant]], parts: Sequence[str]) -> None:
        """`variants`: by op and name. `parts`: the ops, and "io", that may be changed."""
        self._study = study
        self._variants = variants
        self._parts = list(parts)
        self._trial: Trial | None = None

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        champion = history.champion
        moves = [move for move in self._moves(champion.configuration) if self._is_new(move, history)]
        if not moves:
            return None
        first = next((move for move in moves if move.knob == VARIANT), None)
        trial, move = self._draw(champion.configuration, moves, first)
        candidate = self._candidate(champion, move)
        trial.set_user_attr(CANDIDATE, candidate.id)
        self._trial = trial
        return candidate

    def observe(self, candidate: Candidate, row: Row) -> None:
        """See `Proposer`."""
        if self._trial is not None:
            self._study.tell(self._trial, row)
            self._trial = None

    def _draw(self, parent: Configuration, moves: list[Move], first: Move | None) -> tuple[Trial, Move]:
        for _ in range(DRAWS):
            trial = self._study.ask(self._parameters(parent, first) if first else None)
            move = self._suggest(trial, parent)
            if move in moves:
                return trial, move
            self._study.tell(trial, None)
        trial = self._study.ask(self._parameters(parent, moves[0]))
        return trial, self._suggest(trial, parent)

    def _knobs(self, part: str, parent: Configuration) -> dict[str, tuple[int | str, ...]]:
        """What can be changed in a part of `parent`, with the values that each knob can have."""
        if part == IO:
            return dict(IO_SPACE)
        variant = self._variants[part][parent.kernels[part].variant]
        return {VARIANT: tuple(self._variants[part]), **variant.tunables}

    def _moves(self, parent: Configuration) -> Iterator[Move]:
        for part in self._parts:
            for knob, values in self._knobs(part, parent).items():
                yield from (Move(part, knob, value) for value in values)

    def _is_new(self, move: Move, history: History) -> bool:
        """Whether the move leads to something that was not measured.

        A kernel that lost against an earlier champion of its op needs no second chance beside other kernels;
        an I/O policy does, because how much I/O matters depends on the kernels.
        """
        child = self._candidate(history.champion, move)
        if child.id in {history.seed.id, history.champion.id, *(row.id for row in history.rows)}:
            return False
        if move.part == IO:
            return True
        spec = child.configuration.kernels[move.part]
        tried = {(row.op, row.variant, row.tunables) for row in history.rows}
        return (
            spec not in (c.configuration.kernels[move.part] for c in (history.seed, history.champion))
            and (move.part, *changed_part(child)) not in tried
        )

    def _names(self, part: str, parent: Configuration) -> str:
        return part if part == IO else f"{part}/{parent.kernels[part].variant}"

    def _suggest(self, trial: Trial, parent: Configuration) -> Move:
        part = trial.suggest_categorical(label("part", self._parts), self._parts)
        names = self._names(part, parent)
        knobs = self._knobs(part, parent)
        knob = trial.suggest_categorical(label(names, knobs), list(knobs))
        values = knobs[knob]
        return Move(part, knob, trial.suggest_categorical(label(f"{names}.{knob}", values), list(values)))

    def _parameters(self, parent: Configuration, move: Move) -> dict[str, object]:
        names, knobs = self._names(move.part, parent), self._knobs(move.part, parent)
        return {
            label("part", self._parts): move.part,
            label(names, knobs): move.knob,
            label(f"{names}.{move.knob}", knobs[move.knob]): move.value,
        }

    def _candidate(self, champion: Candidate, move: Move) -> Candidate:
        configuration, hypothesis = self._apply(champion.configuration, move)
        identity = identify(configuration, self._variants)
        return Candidate(identity, champion.id, "mutate", hypothesis, configuration, move.part)

    def _apply(self, parent: Configuration, move: Move) -> tuple[Configuration, str]:
        if move.part == IO:
            old = parent.io.get(move.knob)
            return parent.with_io(move.knob, move.value), f"I/O: {move.knob} {old} -> {move.value}"
        spec = parent.kernels[move.part]
        if move.knob == VARIANT:
            variant = self._variants[move.part][str(move.value)]
            spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
            return parent.with_kernel(move.part, spec), variant.hypothesis
        child = KernelSpec(spec.variant, {**spec.tunables, move.knob: int(move.value)})
        old = spec.tunables[move.knob]
        return parent.with_kernel(move.part, child), f"{spec.variant}: {move.knob} {old} -> {move.value}"

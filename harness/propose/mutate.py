"""The rule-based proposer: a child of the champion that changes one thing, suggested by Optuna."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import Trial

from baseline.policy import caches
from baseline.variant import Choice, Variant
from harness.candidate import IO, Candidate, Configuration, KernelSpec, identify
from harness.ledger import Row, unmeasured
from harness.propose.base import History, Proposer
from harness.study import CANDIDATE, Study

VARIANT = "variant"  # the knob of an op that is not one of its variant's tunables
IO_SPACE: Mapping[str, tuple[int | str, ...]] = {
    "threads": (1, 2, 4, 8),
    "reads_per_expert": (1, 2, 4),
    "cache": caches(),
    "schedule": ("graph", "eager"),
    "method": ("auto", "pread"),
    "stream": ("shared", "own"),
    "prefetch": ("none", "previous"),
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
        self._trials: dict[str, Trial] = {}  # of the candidates that are not judged yet

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        for parent, parts in self._parents(history):
            moves = [move for move in self._moves(parent.configuration, parts) if self._is_new(move, parent, history)]
            if moves:
                configuration = parent.configuration
                trial, move = self._draw(configuration, moves, self._fixed(configuration, parts, moves))
                candidate = self._candidate(parent, move)
                trial.set_user_attr(CANDIDATE, candidate.id)
                self._trials[candidate.id] = trial
                return candidate
        return None

    def observe(self, candidate: Candidate, row: Row) -> None:
        """See `Proposer`."""
        self._tell(candidate, row)

    def withdraw(self, candidate: Candidate) -> None:
        """See `Proposer`."""
        self._tell(candidate, None)

    def _tell(self, candidate: Candidate, row: Row | None) -> None:
        if (trial := self._trials.pop(candidate.id, None)) is not None:
            self._study.tell(trial, row)

    def _parents(self, history: History) -> Iterator[tuple[Candidate, list[str]]]:
        """Whose children may be proposed, and which of their parts may change: the champion, then the candidates of
        which nobody knows yet whether they would have beaten it, each in the part that it changed itself."""
        yield history.champion, self._parts
        for row in unmeasured(history.rows):
            if row.op in self._parts and row.variant in self._variants[row.op]:
                spec = KernelSpec(row.variant, json.loads(row.tunables))
                configuration = history.champion.configuration.with_kernel(row.op, spec)
                yield Candidate(row.id, row.parent, row.proposer, row.hypothesis, configuration, row.op), [row.op]

    def _draw(self, parent: Configuration, moves: list[Move], fixed: Mapping[str, object]) -> tuple[Trial, Move]:
        """A trial whose parameters are one of `moves`; `fixed` are those that Optuna is not asked for."""
        for _ in range(DRAWS):
            trial = self._study.ask(fixed)
            move = self._suggest(trial, parent)
            if move in moves:
                return trial, move
            self._study.tell(trial, None)
        trial = self._study.ask(self._parameters(parent, moves[0]))
        return trial, self._suggest(trial, parent)

    def _fixed(self, parent: Configuration, parts: Sequence[str], moves: list[Move]) -> Mapping[str, object]:
        """The other variants come first, in order; of a parent that may change in one part, that part is set."""
        first = next((move for move in moves if move.knob == VARIANT), None)
        if first is not None:
            return self._parameters(parent, first)
        return {} if list(parts) == self._parts else {label("part", self._parts): parts[0]}

    def _knobs(self, part: str, parent: Configuration) -> dict[str, tuple[int | str, ...]]:
        """What can be changed in a part of `parent`, with the values that each knob can have."""
        if part == IO:
            return dict(IO_SPACE)
        variant = self._variants[part][parent.kernels[part].variant]
        return {VARIANT: tuple(self._variants[part]), **variant.tunables}

    def _moves(self, parent: Configuration, parts: Sequence[str]) -> Iterator[Move]:
        for part in parts:
            for knob, values in self._knobs(part, parent).items():
                yield from (Move(part, knob, value) for value in values)

    def _is_new(self, move: Move, parent: Candidate, history: History) -> bool:
        """Whether the move leads to something that was not measured.

        A kernel that lost against an earlier champion of its op needs no second chance beside other kernels;
        an I/O policy does, because how much I/O matters depends on the kernels.
        """
        configuration, _ = self._apply(parent.configuration, move)
        if move.part != IO:
            spec = configuration.kernels[move.part]
            others = (history.seed, history.champion, *history.pending)
            known = {c.configuration.kernels[move.part].written() for c in others}
            if spec.written() in known or (move.part, *spec.written()) in {row.kernel for row in history.rows}:
                return False
        ids = {c.id for c in (history.seed, history.champion, *history.pending)} | {row.id for row in history.rows}
        return identify(configuration, self._variants) not in ids

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

    def _candidate(self, parent: Candidate, move: Move) -> Candidate:
        configuration, hypothesis = self._apply(parent.configuration, move)
        identity = identify(configuration, self._variants)
        return Candidate(identity, parent.id, "mutate", hypothesis, configuration, move.part)

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

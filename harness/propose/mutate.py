"""The rule-based proposer: rewrites of kernels, which a bandit chooses, and tunables, which Optuna does."""

from collections.abc import Iterable, Mapping, Sequence

from optuna.trial import Trial

from baseline.variant import Variant
from harness.candidate import ENGINE_PARTS, Candidate, Configuration
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.propose.moves import Move, Moves
from harness.propose.writer import Writer
from harness.study import CANDIDATE, Study

DRAWS = 4  # how often Optuna may suggest something already tried before the first untried move is taken


def label(name: str, choices: Iterable[object]) -> str:
    """A parameter's name in the study. It lists the choices: Optuna refuses a name whose choices have changed, and a
    search may be resumed with another variant in the folder, or with other ops."""
    return f"{name}: {', '.join(map(str, choices))}"


class Mutate(Proposer):
    """First each op's other variants, then new ones by rewriting, or one change of a tunable where Optuna expects a
    gain, whichever has brought more."""

    def __init__(
        self,
        study: Study,
        variants: Mapping[str, Mapping[str, Variant]],
        parts: Sequence[str],
        writer: Writer | None = None,
    ) -> None:
        """`variants`: by op and name. `parts`: what may be changed: ops, "io", "layout". `writer` adds to `variants`;
        without one, they are all there is."""
        self._study = study
        self._parts = list(parts)
        self._moves = Moves(variants, self._parts)
        self._writer = writer
        self._trials: dict[str, Trial] = {}  # of the candidates that are not judged yet

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        for parent, parts in self._moves.parents(history):
            self._write(parent, parts, history)
            if moves := self._moves.new(parent, parts, history):
                configuration = parent.configuration
                trial, move = self._draw(configuration, moves, self._fixed(configuration, parts, moves))
                candidate = self._moves.child(parent, move, "mutate")
                trial.set_user_attr(CANDIDATE, candidate.id)
                self._trials[candidate.id] = trial
                return candidate
        return None

    def _write(self, parent: Candidate, parts: Sequence[str], history: History) -> None:
        """Has a new variant or layout written when all that come first were tried."""
        moves = self._moves.new(parent, parts, history)
        if self._writer is not None and self._moves.first(moves) is None:
            self._writer.write(parent, parts, history, bool(moves))

    def observe(self, candidate: Candidate, row: Row) -> None:
        """See `Proposer`."""
        self._tell(candidate, row)

    def withdraw(self, candidate: Candidate) -> None:
        """See `Proposer`."""
        self._tell(candidate, None)

    def _tell(self, candidate: Candidate, row: Row | None) -> None:
        if (trial := self._trials.pop(candidate.id, None)) is not None:
            self._study.tell(trial, row)

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
        """What comes first is next, in order; of a parent that may change in one part, that part is set."""
        first = self._moves.first(moves)
        if first is not None:
            return self._parameters(parent, first)
        return {} if list(parts) == self._parts else {label("part", self._parts): parts[0]}

    def _names(self, part: str, parent: Configuration) -> str:
        return part if part in ENGINE_PARTS else f"{part}/{parent.kernels[part].variant}"

    def _suggest(self, trial: Trial, parent: Configuration) -> Move:
        part = trial.suggest_categorical(label("part", self._parts), self._parts)
        names = self._names(part, parent)
        knobs = self._moves.knobs(part, parent)
        knob = trial.suggest_categorical(label(names, knobs), list(knobs))
        values = knobs[knob]
        return Move(part, knob, trial.suggest_categorical(label(f"{names}.{knob}", values), list(values)))

    def _parameters(self, parent: Configuration, move: Move) -> dict[str, object]:
        names, knobs = self._names(move.part, parent), self._moves.knobs(move.part, parent)
        return {
            label("part", self._parts): move.part,
            label(names, knobs): move.knob,
            label(f"{names}.{move.knob}", knobs[move.knob]): move.value,
        }

"""The moves of a search without a model: one change of one part of a configuration, among what the shelf holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from baseline.policy import caches
from baseline.variant import Choice, Variant
from harness.candidate import IO, Candidate, Configuration, KernelSpec, identify
from harness.ledger import unmeasured
from harness.propose.base import History
from harness.propose.parents import beside, parents

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


@dataclass(frozen=True)
class Move:
    """One change of a configuration: a knob of a part (an op or 'io') gets a value."""

    part: str
    knob: str
    value: int | str


@dataclass(frozen=True)
class Moves:
    """All moves there are. `variants`: by op and name. `parts`: the ops, and 'io', that may be changed."""

    variants: Mapping[str, Mapping[str, Variant]]
    parts: Sequence[str]

    def parents(self, history: History) -> Iterator[tuple[Candidate, list[str]]]:
        """Whose children may be proposed, and which of their parts may change: see `harness.propose.parents`; then the
        candidates of which nobody knows yet whether they would have beaten the champion, each in its own part."""
        for parent, parts in parents(history, self.parts):
            if all(parent.configuration.kernels[part].variant in self.variants[part] for part in parts if part != IO):
                yield parent, parts
        for row in unmeasured(history.rows):
            if row.op in self.parts and row.variant in self.variants[row.op]:
                yield beside(row, history)

    def knobs(self, part: str, parent: Configuration) -> dict[str, tuple[int | str, ...]]:
        """What can be changed in a part of `parent`, with the values that each knob can have."""
        if part == IO:
            return dict(IO_SPACE)
        variant = self.variants[part][parent.kernels[part].variant]
        return {VARIANT: tuple(self.variants[part]), **variant.tunables}

    def new(self, parent: Candidate, parts: Sequence[str], history: History) -> list[Move]:
        """The moves from `parent` in these parts that lead to something that was not tried."""
        return [move for move in self._all(parent.configuration, parts) if self._is_new(move, parent, history)]

    def child(self, parent: Candidate, move: Move, proposer: str) -> Candidate:
        """The candidate that a move makes of `parent`."""
        configuration, hypothesis = self._apply(parent.configuration, move)
        identity = identify(configuration, self.variants)
        return Candidate(identity, parent.id, proposer, hypothesis, configuration, move.part)

    def _all(self, parent: Configuration, parts: Sequence[str]) -> Iterator[Move]:
        for part in parts:
            for knob, values in self.knobs(part, parent).items():
                yield from (Move(part, knob, value) for value in values)

    def _is_new(self, move: Move, parent: Candidate, history: History) -> bool:
        """An I/O policy is tried again beside other kernels: how much I/O matters depends on them."""
        configuration, _ = self._apply(parent.configuration, move)
        if move.part != IO and history.knows(move.part, configuration.kernels[move.part]):
            return False
        return identify(configuration, self.variants) not in history.ids

    def _apply(self, parent: Configuration, move: Move) -> tuple[Configuration, str]:
        if move.part == IO:
            old = parent.io.get(move.knob)
            return parent.with_io(move.knob, move.value), f"I/O: {move.knob} {old} -> {move.value}"
        spec = parent.kernels[move.part]
        if move.knob == VARIANT:
            variant = self.variants[move.part][str(move.value)]
            spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
            return parent.with_kernel(move.part, spec), variant.hypothesis
        child = KernelSpec(spec.variant, {**spec.tunables, move.knob: int(move.value)})
        old = spec.tunables[move.knob]
        return parent.with_kernel(move.part, child), f"{spec.variant}: {move.knob} {old} -> {move.value}"

"""The moves of a search without a model: one change of one part of a configuration, among what the shelf holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from baseline.layout import Layout
from baseline.policy import caches
from baseline.variant import Choice, Variant
from harness.candidate import ENGINE_PARTS, IO, LAYOUT, Candidate, Configuration, KernelSpec, identify
from harness.layouts import Layouts
from harness.ledger import unmeasured
from harness.propose.base import History
from harness.propose.parents import beside, parents
from harness.shelf import Shelf

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
    """One change of a configuration: a knob of a part (an op, 'io' or 'layout') gets a value."""

    part: str
    knob: str
    value: int | str


@dataclass(frozen=True)
class Moves:
    """All moves there are. `variants`: by op and name; a shelf has layouts too. `parts`: the ops, 'io' and 'layout',
    that may be changed."""

    variants: Mapping[str, Mapping[str, Variant]]
    parts: Sequence[str]

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """Those that may be chosen, by name."""
        return self.variants.layouts if isinstance(self.variants, Shelf) else {}

    def first(self, moves: Sequence[Move]) -> Move | None:
        """The one that comes before all others: to another variant, or to a layout that was written in this search."""
        written = self.layouts.written if isinstance(self.layouts, Layouts) else ()
        return next((m for m in moves if m.knob == VARIANT or (m.part == LAYOUT and m.value in written)), None)

    def parents(self, history: History) -> Iterator[tuple[Candidate, list[str]]]:
        """Whose children may be proposed, and which of their parts may change: see `harness.propose.parents`; then the
        candidates of which nobody knows yet whether they would have beaten the champion, each in its own part."""
        for parent, parts in parents(history, self.parts):
            kernels = {part: parent.configuration.kernels[part] for part in parts if part not in ENGINE_PARTS}
            if all(spec.variant in self.variants[op] for op, spec in kernels.items()):
                yield parent, parts
        for row in unmeasured(history.rows):
            if row.op in self.variants and row.op in self.parts and row.variant in self.variants[row.op]:
                yield beside(row, history)

    def knobs(self, part: str, parent: Configuration) -> dict[str, tuple[int | str, ...]]:
        """What can be changed in a part of `parent`, with the values that each knob can have. A tunable that has no
        meaning beside the parent's others is none."""
        if part == IO:
            return dict(IO_SPACE)
        if part == LAYOUT:
            own = parent.layout.name if parent.layout else ""
            return {LAYOUT: (own, *(name for name in self.layouts if name != own))}
        spec = parent.kernels[part]
        variant = self.variants[part][spec.variant]
        turned = variant.meaningful(spec.tunables) if variant.when else variant.tunables
        return {VARIANT: tuple(self.variants[part]), **{name: variant.tunables[name] for name in turned}}

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
        if move.part == LAYOUT:
            return configuration.layout is not None and not history.knows_layout(configuration.layout)
        if move.part != IO and history.knows(move.part, configuration.kernels[move.part]):
            return False
        return identify(configuration, self.variants) not in history.ids

    def _apply(self, parent: Configuration, move: Move) -> tuple[Configuration, str]:
        if move.part == IO:
            old = parent.io.get(move.knob)
            return parent.with_io(move.knob, move.value), f"I/O: {move.knob} {old} -> {move.value}"
        if move.part == LAYOUT:
            layout = self.layouts.get(str(move.value), parent.layout)
            return replace(parent, layout=layout), layout.summary if layout else ""
        spec = parent.kernels[move.part]
        if move.knob == VARIANT:
            variant = self.variants[move.part][str(move.value)]
            spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
            return parent.with_kernel(move.part, spec), variant.hypothesis
        changed = KernelSpec(spec.variant, {**spec.tunables, move.knob: int(move.value)})
        child, old = changed.settled(self.variants[move.part][spec.variant]), spec.tunables[move.knob]
        return parent.with_kernel(move.part, child), f"{spec.variant}: {move.knob} {old} -> {move.value}"

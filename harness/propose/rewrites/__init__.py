"""Rewrites of kernel bodies on their syntax trees, each a named and reversible transformation.

A variant is its seed's text and an ordered list of traits, the names of the rewrites that were applied to it. `compose`
makes it; undoing one is composing the others, recombining two variants is composing the traits of both.
"""

from collections.abc import Iterable, Sequence

from harness.propose.rewrites.cpu_inputs import AskOnce, BytesOfInput, MaskInPlace, PermuteValues, PrefetchWords
from harness.propose.rewrites.cpu_order import CutIntoPieces, OneMatrixAtATime
from harness.propose.rewrites.cpu_products import FactorGroups, StageInput
from harness.propose.rewrites.cpu_registers import KeepInRegisters
from harness.propose.rewrites.cpu_rows import SeveralRows
from harness.propose.rewrites.cpu_stores import StorePastCaches
from harness.propose.rewrites.cpu_vectors import FuseLoops, PrefetchElements, Vectorise
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.metal import FusedMultiplyAdd, SimdGroupPerOutput, SpanPerLane
from harness.propose.rewrites.metal_staging import StageInThreadgroup
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.sums import SplitSums, Unroll

ALL: Sequence[Rewrite] = (
    StageInput(),
    CutIntoPieces(),
    OneMatrixAtATime(),
    AskOnce(),
    MaskInPlace(),
    PermuteValues(),
    BytesOfInput(),
    PrefetchWords(),
    FuseLoops(),
    Vectorise(),
    PrefetchElements(),
    KeepInRegisters(),
    StorePastCaches(),
    SeveralRows(),
    FactorGroups(),
    SimdGroupPerOutput(),
    StageInThreadgroup(),
    SpanPerLane(),
    FusedMultiplyAdd(),
    SplitSums(),
    Unroll(),
)
"""Every rewrite, in the order in which a list of them goes farthest."""

_BY_NAME = {rewrite.name: rewrite for rewrite in ALL}


def applicable(text: str) -> list[Rewrite]:
    """The rewrites that apply to the variant with this text, in the order of ALL."""
    return [rewrite for rewrite in ALL if rewrite.applies(text)]


def traits(text: str) -> tuple[str, ...]:
    """The rewrites that made a variant's text, first to last; () for a seed, and for what is no variant."""
    kernel = Kernel.parse(text)
    return kernel.traits if kernel is not None else ()


def compose(seed: str, traits: Iterable[str]) -> str:
    """The seed's text with rewrites applied in order. Raises ValueError for one that does not apply or is not known."""
    for name in traits:
        if name not in _BY_NAME:
            raise ValueError(f"no rewrite is called {name!r}; there are {', '.join(_BY_NAME)}")
        seed = _BY_NAME[name].apply(seed)
    return seed


def undo(seed: str, text: str, name: str) -> str:
    """The variant without one of its rewrites, and without those that need it: of the last one, the very text that it
    was applied to, and the seed itself where none is left."""
    return _as_far_as(seed, (trait for trait in traits(text) if trait != name))


def settled(seed: str, traits: Iterable[str]) -> str:
    """The seed's text with those rewrites of a list, in the order of ALL, that apply one after the other. Rewrites that
    exclude each other, as two ways to decode do, go to the first."""
    wanted = set(traits)
    return _as_far_as(seed, (rewrite.name for rewrite in ALL if rewrite.name in wanted))


def _as_far_as(seed: str, traits: Iterable[str]) -> str:
    for name in traits:
        if _BY_NAME[name].applies(seed):
            seed = _BY_NAME[name].apply(seed)
    return seed

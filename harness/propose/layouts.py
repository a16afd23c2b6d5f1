"""New layouts: one trait of another one changed, or one that somebody has thought of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from baseline.errors import UsageError
from baseline.layout import PROJECTIONS, TENSORS, Layout, check_layout
from harness.candidate import LAYOUT, Candidate, identify
from harness.propose.base import History
from harness.shelf import Shelf

ORDER, TENSOR_ALIGN, ALIGN = "order", "tensor_align", "align"
TRAITS = (ORDER, TENSOR_ALIGN, ALIGN)
GATE, UP, DOWN = PROJECTIONS
# Why each order might be read or computed from faster, and the order.
ORDERS: Mapping[str, tuple[str, ...]] = {
    "by projection: what a matrix needs lies together": tuple(f"{p}.{t}" for p in PROJECTIONS for t in TENSORS),
    "by size, weights first: they are one run of addresses": tuple(f"{p}.{t}" for t in TENSORS for p in PROJECTIONS),
    "by size, the smallest first: scales have arrived when weights come": tuple(
        f"{p}.{t}" for t in reversed(TENSORS) for p in PROJECTIONS
    ),
    "gate and up side by side, as a kernel walks through both": (
        *(f"{p}.{t}" for t in TENSORS for p in (GATE, UP)),
        *(f"{DOWN}.{t}" for t in TENSORS),
    ),
    "scales and biases before their weight: the kernel needs them first": tuple(
        f"{p}.{t}" for p in PROJECTIONS for t in (*TENSORS[1:], TENSORS[0])
    ),
}
# Why each alignment might pay.
TENSOR_ALIGNS = {
    1: "tensors without gaps: the least to read",
    64: "tensors on cache lines: no vector of a first row crosses one",
    4096: "tensors on pages: two threads at two tensors share none",
}
ALIGNS = {
    4096: "records on pages: the least to read",
    16_384: "records on 16 KiB: the page of Apple's machines and of most flash",
    65_536: "records on 64 KiB: fewer and more regular requests to the disk",
}


def changed(layout: Layout) -> Iterator[Layout]:
    """The layouts that differ from one in a single trait, which is their name; the summary says why."""
    for why, order in ORDERS.items():
        yield replace(layout, name=ORDER, summary=f"{layout.name}, {why}", order=order)
    for tensor_align, why in TENSOR_ALIGNS.items():
        yield replace(layout, name=TENSOR_ALIGN, summary=f"{layout.name}, {why}", tensor_align=tensor_align)
    for align, why in ALIGNS.items():
        if align >= layout.tensor_align:
            yield replace(layout, name=ALIGN, summary=f"{layout.name}, {why}", align=align)


def new_layouts(shelf: Shelf, parent: Candidate, history: History) -> Iterator[Layout]:
    """What `changed` makes of a candidate's layout that is not on the shelf; nothing while one there was not tried."""
    own = parent.configuration.layout
    if own is None or not all(history.knows_layout(layout) for layout in shelf.layouts.values()):
        return
    for layout in changed(own):
        if shelf.layouts.same(layout) is None and not history.knows_layout(layout):
            yield layout


def propose_layout(
    shelf: Shelf,
    history: History,
    proposer: str,
    *,
    order: Sequence[str],
    align: int,
    tensor_align: int,
    hypothesis: str,
    name: str = "thought",
) -> Candidate:
    """The champion in a layout that somebody, `proposer`, has thought of: it is put on the shelf.

    UsageError, in one line, for one that cannot be, or that was tried.
    """
    layout = Layout(name, hypothesis, align, tuple(order), tensor_align)
    check_layout(layout)
    if history.knows_layout(layout):
        raise UsageError("a layout that puts every byte where this one does was tried, or is about to be")
    configuration = history.champion.configuration.with_layout(shelf.layouts.add(layout))
    identity = identify(configuration, shelf)
    return Candidate(identity, history.champion.id, proposer, hypothesis, configuration, LAYOUT)

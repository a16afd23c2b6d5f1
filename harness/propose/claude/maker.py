"""From a proposal to a candidate: the variant goes on the shelf, and into the champion's configuration."""

from collections.abc import Sequence

from baseline.errors import UsageError
from baseline.policy import IoPolicy
from baseline.variant import Choice, Variant
from harness.candidate import ENGINE_PARTS, IO, LAYOUT, Candidate, Configuration, KernelSpec, changed_part, identify
from harness.propose.admission import Repetition, admitted
from harness.propose.base import History
from harness.propose.claude.tools import Proposal, ProposeIoPolicy, ProposeKernel, ProposeLayout
from harness.propose.layouts import propose_layout
from harness.refutations import HOPEFUL, names_condition, objection, of_run, turned_down
from harness.shelf import Shelf

CLAUDE = "claude"  # what `Candidate.proposer` says


class Refused(Exception):
    """A proposal that makes no candidate. The message, one line, goes back to the model."""


class Maker:
    """Makes candidates of proposals."""

    def __init__(self, shelf: Shelf, parts: Sequence[str]) -> None:
        """`parts`: the ops, "io" and "layout", that may be changed."""
        self._shelf, self._parts = shelf, tuple(parts)

    def make(self, proposal: Proposal, history: History) -> Candidate:
        """A child of the champion. `Refused` says what is wrong with the proposal, `Repetition` why it need not be
        tried."""
        try:
            if isinstance(proposal, ProposeLayout):
                return self._layout(proposal, history)
            configuration, changed = self._configuration(proposal, history)
        except Repetition:
            raise
        except UsageError as error:
            raise Refused(str(error)) from error
        identity = identify(configuration, self._shelf)
        candidate = Candidate(identity, history.champion.id, CLAUDE, proposal.claim, configuration, changed)
        _refuse_known(candidate, history)
        _refuse_tried(candidate, history)
        return candidate

    def _configuration(self, proposal: Proposal, history: History) -> tuple[Configuration, str]:
        champion = history.champion.configuration
        if isinstance(proposal, ProposeIoPolicy):
            return self._policy(proposal, champion, history), IO
        assert isinstance(proposal, ProposeKernel)
        variant = self._variant(proposal, history)
        spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
        return champion.with_kernel(proposal.op, spec), proposal.op

    def _layout(self, proposal: ProposeLayout, history: History) -> Candidate:
        if why := turned_down(proposal.claim, LAYOUT, self._shelf.target, history.rows):
            raise Repetition(why)
        return propose_layout(
            self._shelf,
            history,
            CLAUDE,
            order=proposal.order,
            align=proposal.align,
            tensor_align=proposal.tensor_align,
            hypothesis=proposal.claim,
            name=proposal.name,
        )

    def _policy(self, proposal: ProposeIoPolicy, champion: Configuration, history: History) -> Configuration:
        IoPolicy(**proposal.policy)  # type: ignore[arg-type]  # raises UsageError
        if why := turned_down(proposal.claim, IO, self._shelf.target, history.rows):
            raise Repetition(why)
        for setting, value in proposal.policy.items():
            champion = champion.with_io(setting, value)
        return champion

    def _variant(self, proposal: ProposeKernel, history: History) -> Variant:
        ops = [part for part in self._parts if part not in ENGINE_PARTS]
        if proposal.op not in ops:
            raise Refused(f"op is {proposal.op!r}; it may be {', '.join(ops)}")
        if proposal.target != self._shelf.target:
            raise Refused(f"target is {proposal.target!r}; this search's is {self._shelf.target!r}")
        if not (proposal.name.isidentifier() and proposal.name.islower()):
            raise Refused(f"name is {proposal.name!r}; it must be lower-case words joined by _")
        return admitted(proposal.op, proposal.name, proposal.text(), self._shelf, history.rows)


def _refuse_known(candidate: Candidate, history: History) -> None:
    """`Repetition` for what is a candidate already."""
    known = {row.id: str(row.status) for row in history.rows}
    known |= {other.id: "not judged yet" for other in history.pending}
    known |= {history.champion.id: "the champion"}
    if candidate.id in known:
        raise Repetition(f"that is candidate {candidate.id}: {known[candidate.id]}")


def _refuse_tried(candidate: Candidate, history: History) -> None:
    """`Repetition` for what was tried beside another champion: a kernel, or an I/O policy that lost, where nothing is
    said to have changed."""
    part = candidate.changed, *changed_part(candidate)
    tried = next((row for row in reversed(history.rows) if row.kernel == part), None)
    if tried is None:
        return
    if candidate.changed != IO:
        raise Repetition(f"that is the kernel of candidate {tried.id}: {tried.status}")
    if tried.status not in HOPEFUL and not names_condition(candidate.hypothesis):
        raise Repetition(objection(of_run(tried)))

"""From a proposal to a candidate: the variant goes on the shelf, and into the champion's configuration."""

from collections.abc import Callable, Mapping, Sequence

from baseline.errors import UsageError
from baseline.policy import IoPolicy
from baseline.variant import Choice, Variant
from harness.candidate import IO, Candidate, Configuration, KernelSpec, identify
from harness.propose.base import History
from harness.propose.claude.tools import Proposal, ProposeIoPolicy, ProposeKernel

CLAUDE = "claude"  # what `Candidate.proposer` says


class Refused(Exception):
    """A proposal that makes no candidate. The message, one line, goes back to the model."""


Add = Callable[[str, str, str], Variant]
"""Puts a new variant on the shelf: its op, its name, its text. UsageError when it is no sound one."""

Objection = Callable[[str, str], str]
"""Why a kernel of an op, given as a variant's text, need not be tried; '' when nothing speaks against it."""


def nothing(op: str, text: str) -> str:
    """The objection that is none."""
    return ""


class Maker:
    """Makes candidates of proposals."""

    def __init__(
        self,
        shelf: Mapping[str, Mapping[str, Variant]],
        add: Add,
        target: str,
        parts: Sequence[str],
        objection: Objection = nothing,
    ) -> None:
        """`shelf`: the variants by op and name, those included that `add` puts there. `parts`: what may be changed."""
        self._shelf, self._add, self._target = shelf, add, target
        self._parts, self._objection = tuple(parts), objection

    def make(self, proposal: Proposal, history: History) -> Candidate:
        """A child of the champion. `Refused` says what is wrong with the proposal."""
        try:
            configuration, changed = self._configuration(proposal, history.champion.configuration)
        except UsageError as error:
            raise Refused(str(error)) from error
        identity = identify(configuration, self._shelf)
        self._refuse_known(identity, history)
        return Candidate(identity, history.champion.id, CLAUDE, proposal.claim, configuration, changed)

    def _configuration(self, proposal: Proposal, champion: Configuration) -> tuple[Configuration, str]:
        if isinstance(proposal, ProposeIoPolicy):
            IoPolicy(**proposal.policy)  # type: ignore[arg-type]  # raises UsageError
            for setting, value in proposal.policy.items():
                champion = champion.with_io(setting, value)
            return champion, IO
        assert isinstance(proposal, ProposeKernel)
        variant = self._variant(proposal)
        spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
        return champion.with_kernel(proposal.op, spec), proposal.op

    def _variant(self, proposal: ProposeKernel) -> Variant:
        if proposal.op == IO or proposal.op not in self._parts:
            raise Refused(f"op is {proposal.op!r}; it may be {', '.join(p for p in self._parts if p != IO)}")
        if proposal.target != self._target:
            raise Refused(f"target is {proposal.target!r}; this search's is {self._target!r}")
        if not (proposal.name.isidentifier() and proposal.name.islower()):
            raise Refused(f"name is {proposal.name!r}; it must be lower-case words joined by _")
        text = proposal.text()
        if why := self._objection(proposal.op, text):
            raise Refused(why)
        return self._add(proposal.op, proposal.name, text)

    def _refuse_known(self, identity: str, history: History) -> None:
        known = {row.id: str(row.status) for row in history.rows}
        known |= {other.id: "not judged yet" for other in (*history.pending,)}
        known |= {history.champion.id: "the champion"}
        if identity in known:
            raise Refused(f"that is candidate {identity}: {known[identity]}")

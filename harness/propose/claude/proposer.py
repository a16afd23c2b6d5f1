"""The proposer itself: asks the model, has its proposals judged, gives rejected ones back; and steps aside for another
proposer while the model cannot be had."""

from collections.abc import Mapping

from anthropic.types import ToolUseBlock

from baseline.variant import Variant
from harness.candidate import Candidate
from harness.ledger import Row
from harness.propose.admission import Repetition
from harness.propose.base import History, Proposer
from harness.propose.claude import prompt, tools
from harness.propose.claude.client import Answer, Client, Request
from harness.propose.claude.conversation import Conversation
from harness.propose.claude.event import Event, Kind, Record, Spent, Unanswered
from harness.propose.claude.maker import Maker, Refused
from harness.propose.claude.mix import Mix
from harness.propose.claude.outcome import REPAIRABLE, outcome
from harness.propose.claude.price import Usage
from harness.propose.claude.prompt import Knowledge
from harness.propose.claude.reading import Reading, Unreadable
from harness.propose.claude.tools import Proposal

CALLS = 12  # for one candidate: questions, unsound proposals and their repair included
FAILURES = 3  # in a row, after which the other proposer has its turn
REST = 8  # candidates of the other proposer, after which the model is tried again
PASSING = (Kind.STALL, Kind.OVERLOAD, Kind.CUT)  # what a conversation that has begun survives
NO_CALL = "Answer with a call of one of the tools: a proposal, or a question."


class Claude(Proposer):
    """Candidates that a language model proposes; another proposer's while the model cannot be had."""

    def __init__(
        self,
        client: Client,
        known: Knowledge,
        shelf: Mapping[str, Mapping[str, Variant]],
        maker: Maker,
        reading: Reading,
        instead: Proposer,
        record: Record,
    ) -> None:
        """`instead`: who proposes where the model cannot. `record` is told of every `Event`."""
        self._client, self._known, self._shelf, self._maker, self._reading = client, known, shelf, maker, reading
        self._instead, self._record = instead, record
        self._open: dict[str, Conversation] = {}  # by the candidate that is being judged
        self._repairs: list[Conversation] = []  # whose rejected candidate goes back to the model
        self._spent: dict[str, Spent] = {}
        self._mix = Mix(client.settings.models)
        self._failures, self._rest = 0, 0

    def propose(self, history: History) -> Candidate | None:
        """See `Proposer`."""
        while True:
            resting = self._resting()
            if not resting and (candidate := self._attempt(history)) is not None:
                return candidate
            other = self._instead.propose(history)
            if other is not None or resting:
                self._rest = max(self._rest - 1, 0)
                return other
            self._idle()

    def observe(self, candidate: Candidate, row: Row) -> None:
        """See `Proposer`. A candidate that the model can repair goes back to it with what was found."""
        conversation = self._open.pop(candidate.id, None)
        if conversation is None:
            self._instead.observe(candidate, row)
        elif row.status in REPAIRABLE and conversation.repairs > 0:
            conversation.repairs -= 1
            conversation.judged(outcome(row, self._reading, conversation.repairs))
            self._repairs.append(conversation)

    def withdraw(self, candidate: Candidate) -> None:
        """See `Proposer`. What such a candidate took is an event's: it has no row."""
        if self._open.pop(candidate.id, None) is None:
            self._instead.withdraw(candidate)
        else:
            self._unused(f"candidate {candidate.id} was withdrawn", self._spent.pop(candidate.id))

    @property
    def at_once(self) -> bool:
        """See `Proposer`: while the other proposer has its turn, it does."""
        return self._resting() and self._instead.at_once

    def spent(self, candidate: Candidate) -> Spent | None:
        """What a candidate took; None for one of the other proposer."""
        return self._spent.get(candidate.id)

    def close(self) -> None:
        """Records what was paid for and came to nothing, and ends the connections to the server."""
        for conversation in self._repairs:
            self._unused("the search ended before an answer was complete", conversation.take())
        self._client.sdk.close()

    @property
    def total_usd(self) -> float:
        """All that was spent, candidates' and events', by an earlier part of the search too; nan where no price is
        known. Calls that failed count as the most that they can have cost."""
        return self._client.budget.spent

    def _resting(self) -> bool:
        """Whether the model is not to be asked now."""
        return not self._mix or self._rest > 0

    def _idle(self) -> None:
        """Neither has a candidate: the model is asked again at once, a few times."""

    def _attempt(self, history: History) -> Candidate | None:
        """A candidate from the model; None, and an event, when there is none."""
        conversation = self._next(history)
        before = self._client.budget.spent - conversation.spent.usd
        try:
            candidate = self._converse(conversation, history)
        except Unanswered as failure:
            self._failed(failure, conversation)
            return None
        except KeyboardInterrupt:
            usage, usd = conversation.take().usage, self._client.budget.spent - before
            self._record(Event(Kind.UNUSED, "Ctrl-C", usage, usd, conversation.spent.model))
            raise
        self._failures = 0
        return candidate

    def _next(self, history: History) -> Conversation:
        """What goes on, or else a new conversation with the model that promises most."""
        for conversation in self._repairs:
            if conversation.spent.model in self._mix:
                self._repairs.remove(conversation)
                return conversation
        return self._begin(history, self._mix.choose(history.rows))

    def _begin(self, history: History, model: str, number: int = 1, among: int = 1) -> Conversation:
        """A new conversation; `number`, `among`: which of how many that begin together."""
        blocks = prompt.stable(self._known)
        blocks += prompt.changing(history, self._shelf, self._known, self._known.refuted())
        first = {"role": "user", "content": [*blocks, prompt.ask(self._known, number, among)]}
        return Conversation([first], self._client.settings.repairs, Spent(model))

    def _converse(self, conversation: Conversation, history: History) -> Candidate:
        """Asks until a proposal holds. `Unanswered` when none does in so many calls."""
        while conversation.asked < CALLS:
            answer = self._client.ask(self.request(conversation))
            if (candidate := self._heard(conversation, answer, history)) is not None:
                return candidate
        raise Unanswered(Kind.MALFORMED, f"no sound proposal in {CALLS} calls")

    def request(self, conversation: Conversation) -> Request:
        """A call of the Messages API. No tool is forced: models that think refuse that."""
        return {
            "model": conversation.spent.model,
            "max_tokens": self._client.settings.max_tokens,
            "system": prompt.system(),
            "tools": tools.schemas(self._known.parts),
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "messages": conversation.messages(),
        }

    def _heard(self, conversation: Conversation, answer: Answer, history: History) -> Candidate | None:
        """The candidate that an answer proposes; else what the model asked for is said to it, or what is wrong."""
        calls, candidate = conversation.hear(answer), None
        for call in calls:
            if candidate is not None:
                conversation.result(call, "One proposal at a time: this one was not looked at.", error=True)
                continue
            candidate = self._answer(conversation, call, history)
        if candidate is not None:
            self._open[candidate.id] = conversation
            return candidate
        if not calls:
            self._note(conversation, Kind.MALFORMED, "an answer without a tool call")
        conversation.say(*([] if calls else [prompt.text(NO_CALL)]))
        return None

    def _answer(self, conversation: Conversation, call: ToolUseBlock, history: History) -> Candidate | None:
        """Makes a candidate of a proposal, or says what a read-only tool gives."""
        try:
            asked = tools.parse(call.name, call.input, self._known.parts)
            if not isinstance(asked, Proposal):
                conversation.result(call, self._reading.answer(asked))
                return None
            candidate = self._maker.make(asked, history)
        except Unreadable as error:
            conversation.result(call, str(error), error=True)
            return None
        except Repetition as error:
            self._note(conversation, Kind.REPEATED, str(error))
            conversation.object(call, str(error))
            return None
        except (ValueError, Refused) as error:
            self._note(conversation, Kind.MALFORMED, str(error))
            conversation.result(call, str(error), error=True)
            return None
        self._spent[candidate.id] = conversation.propose(call)
        return candidate

    def _note(self, conversation: Conversation, kind: Kind, reason: str) -> None:
        """An answer that will not do. Its cost is the candidate's that comes of it, or of the event that ends it."""
        self._record(Event(kind, reason, Usage(), 0.0, conversation.spent.model))

    def _unused(self, reason: str, spent: Spent) -> None:
        if spent:
            self._record(Event(Kind.UNUSED, reason, spent.usage, spent.usd, spent.model))

    def _failed(self, failure: Unanswered, conversation: Conversation | None = None) -> None:
        """Records what went wrong, with all that was spent on a conversation that ends with it."""
        spent = conversation.take() if conversation else Spent(", ".join(self._client.settings.models))
        shares = failure.shares or {spent.model: failure.usd}
        for model, usd in shares.items():
            self._record(Event(failure.kind, failure.reason, spent.usage, spent.usd + usd, model))
            if failure.kind is Kind.BUDGET:
                self._mix.drop(model)
        if conversation:
            self._mix.failed(spent.model)
        if conversation and failure.kind in PASSING and len(conversation.turns) > 1:
            self._repairs.append(conversation)
        self._failures += 1
        if self._failures >= FAILURES:
            self._rest = REST

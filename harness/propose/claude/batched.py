"""The proposer that asks in batches: another proposer works while a batch is out."""

from time import sleep
from typing import Any

from harness.candidate import Candidate
from harness.costs import Part, spent_on
from harness.propose.base import History
from harness.propose.claude.batch import Batch
from harness.propose.claude.client import Answer
from harness.propose.claude.conversation import Conversation
from harness.propose.claude.event import Event, Kind, Spent, Unanswered
from harness.propose.claude.price import Usage
from harness.propose.claude.proposer import CALLS, Claude

SIZE = 6  # conversations of a batch: more would be asked before they can know what came of the others
POLL_S = 10.0  # between two looks at a batch, where there is nothing else to do


class BatchedClaude(Claude):
    """A batch holds what is to be repaired or goes on, and new conversations, each told to take another idea."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._batch: Batch | None = None
        self._out: list[Conversation] = []  # in the batch
        self._answered: list[tuple[Conversation, Answer | Unanswered]] = []  # not read yet
        self._waited_s = 0.0

    def close(self) -> None:
        """See `Claude`. A batch that is out is cancelled."""
        if self._batch is not None:
            self._batch.cancel()
            self._cancelled(self._batch, "a batch was out when the search ended")
            self._batch = None
        for conversation, answer in self._answered:
            if isinstance(answer, Answer):
                spent = Spent(conversation.spent.model, answer.usage, answer.usd)
                self._unused("an answer was not read when the search ended", spent)
        super().close()

    def _resting(self) -> bool:
        """An exhausted budget ends the asking; what is out is paid for, and read."""
        unread = self._batch is not None or bool(self._answered)
        return self._rest > 0 or (not self._mix and not unread)

    def _attempt(self, history: History) -> Candidate | None:
        """The next candidate of a batch that is back; None while it is out. Sends the next one when all is read."""
        try:
            self._collect()
            while self._answered:
                if (candidate := self._read(*self._answered.pop(0), history)) is not None:
                    self._failures, self._waited_s = 0, 0.0
                    return candidate
            if self._batch is None and self._mix:
                self._send(history)
        except Unanswered as failure:
            self._failed(failure)
        return None

    @spent_on(Part.WAITING)
    def _idle(self) -> None:
        """Waits for the batch, up to `patience_s`."""
        if self._batch is None:
            return
        if self._waited_s >= self._client.settings.patience_s:
            self._failed(Unanswered(Kind.STALL, f"a batch is out for more than {self._waited_s:g} s of waiting"))
            self._waited_s = 0.0
            return
        pause_s = min(POLL_S, self._client.settings.patience_s)
        sleep(pause_s)
        self._waited_s += pause_s

    def _cancelled(self, batch: Batch, reason: str) -> None:
        """Records what the calls of each model count as."""
        for model, usd in batch.shares.items():
            self._record(Event(Kind.UNUSED, reason, Usage(), usd, model))

    @spent_on(Part.WAITING)
    def _collect(self) -> None:
        if self._batch is not None and (answers := self._batch.answers()) is not None:
            self._answered = list(zip(self._out, answers, strict=True))
            self._batch, self._out = None, []

    def _read(self, conversation: Conversation, answer: Answer | Unanswered, history: History) -> Candidate | None:
        """The candidate that an answer proposes; a conversation without one goes on in the next batch."""
        try:
            if isinstance(answer, Unanswered):
                raise answer
            candidate = self._heard(conversation, answer, history)
            if candidate is None and conversation.asked >= CALLS:
                raise Unanswered(Kind.MALFORMED, f"no sound proposal in {CALLS} calls")
        except Unanswered as failure:
            self._failed(failure, conversation)
            return None
        if candidate is None:
            self._repairs.append(conversation)
        return candidate

    def _send(self, history: History) -> None:
        """Sends what goes on, and new conversations, each with the model that promises most beside the others."""
        asked = [conversation for conversation in self._repairs if conversation.spent.model in self._mix][:SIZE]
        new = SIZE - len(asked)
        for number in range(1, new + 1):
            model = self._mix.choose(history.rows, [conversation.spent.model for conversation in asked])
            asked.append(self._begin(history, model, number, new))
        batch = Batch(self._client, [self.request(conversation) for conversation in asked])
        try:
            with spent_on(Part.WAITING):
                batch.send()
        except KeyboardInterrupt:
            self._cancelled(batch, "Ctrl-C while a batch was sent")
            raise
        self._batch, self._out = batch, asked[: len(batch)]
        self._repairs = [conversation for conversation in self._repairs if conversation not in self._out]

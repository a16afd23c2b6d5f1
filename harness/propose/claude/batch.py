"""Several calls at once through the Message Batches API: slower, at half the price."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import anthropic
import httpx2
from anthropic.types.messages import MessageBatchIndividualResponse

from harness.propose.claude.budget import Exhausted, Hold
from harness.propose.claude.client import NONSENSE, Answer, Client, Request, one_line, sound, usage_of
from harness.propose.claude.event import Kind, Unanswered
from harness.propose.claude.price import Usage

FAULTS = (anthropic.AnthropicError, httpx2.TransportError, *NONSENSE)


class Batch:
    """Calls that are out together. What each may cost is held until its answer is here."""

    def __init__(self, client: Client, requests: Sequence[Request]) -> None:
        self._client, self._requests = client, requests
        self._holds: list[Hold] = []

    def send(self) -> None:
        """Sends as many of the requests, from the first, as there is money for. `Unanswered` when none was sent."""
        try:
            self._reserve()
        except KeyboardInterrupt:  # nothing was sent
            self._settle(free=True)
            raise
        calls = [{"custom_id": _name(n), "params": dict(self._requests[n])} for n in range(len(self._holds))]
        try:
            self._id = self._client.sdk.messages.batches.create(requests=calls).id  # type: ignore[arg-type]
        except FAULTS as error:
            self._settle(free=isinstance(error, anthropic.APIStatusError))
            raise Unanswered(Kind.ERROR, f"the batch was not taken: {one_line(error)}", shares=self.shares) from error
        except KeyboardInterrupt:  # the server may have taken it, and nobody knows its name
            self._settle(free=False)
            raise

    @property
    def shares(self) -> dict[str, float]:
        """Dollars that the calls of each model count as: the most, where nobody knows."""
        shares = dict.fromkeys((str(request["model"]) for request in self._requests), 0.0)
        for hold in self._holds:
            shares[hold.model] += hold.usd
        return shares

    def __len__(self) -> int:
        """How many calls are out."""
        return len(self._holds)

    def answers(self) -> list[Answer | Unanswered] | None:
        """What came of each call, in order; None while the server is at work. `Unanswered` when it does not tell."""
        batches = self._client.sdk.messages.batches
        try:
            if batches.retrieve(self._id).processing_status != "ended":
                return None
            told = {result.custom_id: result for result in batches.results(self._id)}
        except anthropic.NotFoundError:  # nobody will hear of it any more
            told = {}
        except FAULTS as error:
            raise Unanswered(Kind.ERROR, f"batch {self._id}: {one_line(error)}") from error
        return [self._answer(told, number, hold) for number, hold in enumerate(self._holds)]

    def cancel(self) -> None:
        """Has the server stop. The calls count as the most that they can cost: nobody will hear what they did."""
        with suppress(*FAULTS):  # it ends by itself, a day later at most
            self._client.sdk.messages.batches.cancel(self._id)
        self._settle(free=False)

    def _reserve(self) -> None:
        """Holds for as many requests, from the first, as there is room for. `Unanswered` when there is for none."""
        for request in self._requests:
            try:
                self._holds.append(self._client.budget.reserve(*self._client.most(request)))
            except Exhausted as error:
                if not self._holds:
                    raise Unanswered(Kind.BUDGET, str(error), shares={request["model"]: 0.0}) from error
                break

    def _answer(
        self, told: Mapping[str, MessageBatchIndividualResponse], number: int, hold: Hold
    ) -> Answer | Unanswered:
        """One call's answer, paid for. Calls that failed, expired or were cancelled cost nothing."""
        result = told.get(_name(number))
        try:
            if result is None:
                return Unanswered(Kind.CUT, f"batch {self._id} has no answer to call {number}", hold.usd)
            if result.result.type != "succeeded":
                hold.cost(Usage(), 0.0)
                return Unanswered(Kind.ERROR, f"batch {self._id}: call {number} {result.result.type}")
            message = sound(result.result.message)
            hold.cost(usage_of(message), self._client.prices[hold.model].usd(usage_of(message)))
            return Answer(message, hold.usage, hold.usd)
        except NONSENSE as error:
            return Unanswered(Kind.MALFORMED, f"not an answer: {one_line(error)}", hold.usd)
        finally:
            self._client.budget.settle(hold)

    def _settle(self, free: bool) -> None:
        """Ends all that is held, `free` where nothing is charged."""
        for hold in self._holds:
            if free:
                hold.cost(Usage(), 0.0)
            self._client.budget.settle(hold)


def _name(number: int) -> str:
    return f"call-{number}"

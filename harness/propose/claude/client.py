"""One call of the Messages API: streamed, paid for out of the budget, tried again while the server is overloaded."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import sleep
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from harness.costs import Part, spent_on
from harness.propose.claude.budget import Budget, Exhausted, Hold
from harness.propose.claude.event import Kind, Unanswered
from harness.propose.claude.price import Price, Usage
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.claude.silence import listen

Request = Mapping[str, Any]
OVERLOADED = (429, 529)
HTTP_OK = 200
MARGIN = 1.05  # the server's count of a request's tokens is an estimate
FIRST_PAUSE_S = 1.0  # the least; doubled with each trial, where the server does not say how long to wait
LONGEST_PAUSE_S = 60.0
# What the SDK raises while it makes sense of an answer that is none.
NONSENSE = (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError)


@dataclass(frozen=True)
class Answer:
    """What the model said, and what that took."""

    message: Message
    usage: Usage
    usd: float


class Busy(Exception):
    """The server cannot answer now, and charges nothing. `pause_s`: how long it says to wait; nan when it does not."""

    def __init__(self, kind: Kind, reason: str, pause_s: float) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.pause_s = kind, reason, pause_s


class Client:
    """The SDK, with our own patience and purse in place of its retries."""

    def __init__(self, settings: ClaudeSettings, key: str, prices: Mapping[str, Price], budget: Budget) -> None:
        self.settings, self.prices, self.budget = settings, prices, budget
        patience_s = settings.patience_s
        timeout = httpx2.Timeout(patience_s, connect=min(patience_s, 10.0))
        http = anthropic.DefaultHttpxClient(timeout=timeout, event_hooks={"response": [listen(patience_s)]})
        headers = {"Accept-Encoding": "identity"}  # compressed, a ping could not be told from an answer
        self.sdk = anthropic.Anthropic(
            api_key=key,
            base_url=settings.base_url,
            timeout=timeout,
            max_retries=0,
            default_headers=headers,
            http_client=http,
        )

    @spent_on(Part.WAITING)
    def ask(self, request: Request) -> Answer:
        """The model's answer. `Unanswered` says why there is none; waits out an overload, up to `patience_s`."""
        waited, pause = 0.0, FIRST_PAUSE_S
        while True:
            try:
                return self._once(request)
            except Busy as busy:
                pause_s = pause if math.isnan(busy.pause_s) else busy.pause_s
                if waited + pause_s > self.settings.patience_s:
                    raise Unanswered(busy.kind, f"{busy.reason}, after {waited:.1f} s of waiting") from busy
                sleep(pause_s)
                waited, pause = waited + pause_s, min(2 * pause, LONGEST_PAUSE_S)

    def most(self, request: Request) -> tuple[str, Usage, float]:
        """The model that a request is for, and the most that it can take: tokens and dollars."""
        usage = Usage(input=self._count(request), output=int(request["max_tokens"]))
        return request["model"], usage, self.prices[request["model"]].worst(usage.input, usage.output)

    def _count(self, request: Request) -> int:
        """The request's tokens as the server counts them. Its bytes, which are more, where it does not, and where
        nothing is capped: that needs no call."""
        counted = {name: given for name, given in request.items() if name != "max_tokens"}
        if self.settings.max_usd is None:
            return len(json.dumps(counted))
        try:
            return math.ceil(MARGIN * self.sdk.messages.count_tokens(**counted).input_tokens)
        except (anthropic.APIError, AttributeError, TypeError):  # a server that does not count
            return len(json.dumps(counted))

    def _once(self, request: Request) -> Answer:
        try:
            with self.budget.hold(*self.most(request)) as hold:
                try:
                    message = self._stream(request, hold)
                except Unanswered as failure:
                    failure.usd = hold.usd
                    raise
                usage = usage_of(message)
                hold.cost(usage, self.prices[hold.model].usd(usage))
        except Exhausted as error:
            raise Unanswered(Kind.BUDGET, str(error)) from error
        return Answer(message, usage, hold.usd)

    def _stream(self, request: Request, hold: Hold) -> Message:
        """The whole answer. `hold` stays at the worst case where the server may have begun one that did not arrive."""
        try:
            with self.sdk.messages.stream(**request) as stream:
                for event in stream:
                    if event.type == "message_stop":
                        return sound(event.message)
            raise Unanswered(Kind.CUT, "the answer ended before it was whole")
        except anthropic.APIStatusError as error:
            if error.status_code == HTTP_OK:  # the answer had begun
                raise Unanswered(Kind.CUT, said(error)) from error
            hold.cost(Usage(), 0.0)
            raise refused(error) from error
        except anthropic.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                hold.cost(Usage(), 0.0)
                raise Busy(Kind.ERROR, f"no connection: {error.__cause__}", math.nan) from error
            raise broken(error.__cause__ or error, self.settings.patience_s) from error
        except httpx2.TransportError as error:
            raise broken(error, self.settings.patience_s) from error
        except NONSENSE as error:
            raise Unanswered(Kind.MALFORMED, f"not an answer: {one_line(error)}") from error


def sound(message: Message) -> Message:
    """An answer that has what we read of one. ValueError otherwise: the SDK does not look."""
    usage = usage_of(message)
    counts = (usage.input, usage.cache_write, usage.cache_read, usage.output)
    if not isinstance(message.content, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise ValueError(f"its content is {type(message.content).__name__}, its usage {counts}")
    return message


def usage_of(message: Message) -> Usage:
    """The tokens that an answer says it took."""
    said = message.usage
    written, read = said.cache_creation_input_tokens or 0, said.cache_read_input_tokens or 0
    return Usage(said.input_tokens, written, read, said.output_tokens)


def refused(error: anthropic.APIStatusError) -> Exception:
    """What a status that is no answer means: try again, or do not."""
    status = error.status_code
    if status in OVERLOADED:
        return Busy(Kind.OVERLOAD, said(error), pause_of(error.response.headers))
    if status >= 500 or status in (408, 409):
        return Busy(Kind.ERROR, said(error), pause_of(error.response.headers))
    return Unanswered(Kind.ERROR, said(error))


def broken(error: BaseException, patience_s: float) -> Unanswered:
    """What a connection that ended early means."""
    if isinstance(error, httpx2.TimeoutException):
        return Unanswered(Kind.STALL, f"the server was silent for {patience_s:g} s")
    return Unanswered(Kind.CUT, f"the connection was lost: {one_line(error)}")


def pause_of(headers: Mapping[str, str]) -> float:
    """Seconds that a server says to wait; nan when it does not say, or says it as a date."""
    try:
        return max(float(headers["retry-after"]), FIRST_PAUSE_S)
    except (KeyError, ValueError):
        return math.nan


def said(error: anthropic.APIStatusError) -> str:
    """A server's refusal, in one line."""
    return f"HTTP {error.status_code}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """An error's message, no longer than a ledger wants it."""
    return f"{type(error).__name__} {' '.join(str(error).split())}"[:300]

"""What the model and we have said about one idea, from the first question to the outcome of the last repair."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from anthropic.types import ToolUseBlock

from harness.propose.claude.client import Answer
from harness.propose.claude.event import Kind, Spent, Unanswered
from harness.propose.claude.prompt import CACHED, Block, text

Turn = dict[str, Any]


@dataclass(eq=False)
class Conversation:
    """Turns of the Messages API. `repairs`: how often what was rejected may still go back to the model.

    spent: by the calls since the last candidate, which no candidate and no event accounts for yet.
    """

    turns: list[Turn]
    repairs: int
    spent: Spent
    called: str = ""  # the tool call whose proposal is being judged
    results: list[Block] = field(default_factory=list)  # of the model's last tool calls, not said yet
    asked: int = 0  # calls since the last candidate

    def messages(self) -> list[Turn]:
        """All turns; the last block of the last one ends what is cached: the next call reads from there."""
        *before, last = self.turns
        *blocks, end = last["content"]
        return [*before, {**last, "content": [*blocks, {**end, "cache_control": CACHED}]}]

    def hear(self, answer: Answer) -> Sequence[ToolUseBlock]:
        """The model's turn: its tool calls. `Unanswered` for a refusal and for an answer that was cut off."""
        self.spent = self.spent.plus(answer.usage, answer.usd)
        self.asked += 1
        message = answer.message
        if message.stop_reason == "refusal":
            raise Unanswered(Kind.REFUSAL, "the model refused to answer")
        if message.stop_reason in ("max_tokens", "model_context_window_exceeded"):
            raise Unanswered(Kind.TRUNCATED, f"the answer was cut off: {message.stop_reason}")
        # As it came, thinking included: the server wants it back unchanged.
        said = [block.model_dump(mode="json", exclude_none=True, warnings=False) for block in message.content]
        self.turns.append({"role": "assistant", "content": said or [text("(nothing)")]})
        return [block for block in message.content if isinstance(block, ToolUseBlock)]

    def result(self, call: ToolUseBlock, words: str, error: bool = False) -> None:
        """What a tool call gave; it is said with the results of the calls beside it."""
        self.results.append(_result(call.id, words, error))

    def object(self, call: ToolUseBlock, words: str) -> None:
        """What speaks against a call's proposal, which counts as a repair. `Unanswered` when none is left."""
        if self.repairs == 0:
            raise Unanswered(Kind.REPEATED, f"no repair is left: {words}")
        self.repairs -= 1
        self.result(call, words, error=True)

    def propose(self, call: ToolUseBlock) -> Spent:
        """A call's proposal is to be judged; what it took until now is the candidate's."""
        self.called, spent = call.id, self.take()
        return spent

    def judged(self, words: str) -> None:
        """The outcome of the proposal that was judged, as the result of its tool call."""
        self.results.append(_result(self.called, words, error=True))
        self.called = ""
        self.say()

    def say(self, *blocks: Block) -> None:
        """Our turn: all results of tool calls, and then `blocks`."""
        self.turns.append({"role": "user", "content": [*self.results, *blocks]})
        self.results = []

    def take(self) -> Spent:
        """What was spent and is accounted for from here on."""
        spent, self.spent, self.asked = self.spent, Spent(self.spent.model), 0
        return spent


def _result(call: str, words: str, error: bool) -> Block:
    return {"type": "tool_result", "tool_use_id": call, "content": words, "is_error": error}

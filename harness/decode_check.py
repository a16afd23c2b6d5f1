"""The texts of the timed decodes, all of them new, and the check of what was decoded.

A process that knew a prompt could have its continuation ready. So each decode has a prompt drawn by lot, and once the
clock runs a token by lot comes first, in place of the one that the model would say. What was said is put to the
champion's kernels afterwards, in a process without the candidate's code, token by token: each must be the most likely,
and as likely as was said, which cannot be guessed where a text ends in what can.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baseline.golden import Golden
from harness.blocks import CHAMPION
from harness.candidate import Failure, Status
from harness.conversation import Conversation

if TYPE_CHECKING:
    from harness.decodes import Decode

CHECKED = 3  # of the decodes that count, drawn by lot, and as many of the quickest: who lies does it there
LOT = random.SystemRandom()


@dataclass(frozen=True)
class Text:
    """The tokens of a prompt, and the one that comes after it."""

    prompt: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Said:
    """A token that was decoded, and its logit."""

    token: int
    logit: float


@dataclass(frozen=True)
class Texts:
    """Where texts are drawn from: `prompt` of the `tokens` for a prompt, and any of the vocabulary after it, of which
    there are too many to have an answer to each ready."""

    tokens: Sequence[int]
    vocabulary: int
    prompt: int

    @classmethod
    def of(cls, golden: Golden, prompt: int) -> "Texts":
        """The tokens of a record's prompts."""
        asked = golden.questions.prompts
        return cls(sorted({token for one in asked for token in one.tokens}), golden.answers.logits[0].shape[-1], prompt)

    def draw(self) -> Text:
        """A text that nobody could have known."""
        return Text(tuple(LOT.choices(self.tokens, k=self.prompt)), LOT.randrange(self.vocabulary))

    def said(self, answer: Any, tokens: int) -> tuple[Said, ...]:
        """What a process says it has decoded, so many tokens; () for what cannot be that."""
        if not isinstance(answer, list) or len(answer) != tokens or not all(map(self._is_said, answer)):
            return ()
        return tuple(Said(token, logit) for token, logit in answer)

    def _is_said(self, one: Any) -> bool:
        kinds = [type(part) for part in one] if isinstance(one, list) else []
        return kinds == [int, float] and one[0] in range(self.vocabulary)


def check(decodes: Sequence["Decode"], scorer: Conversation, tie: float) -> Failure | None:
    """What is wrong with what was decoded. scorer: the champion's process. tie: how far a token's logit may be from the
    highest one, and from what it was said to be."""
    if any(not decode.said for decode in decodes):
        return _wrong("its answer was no text of as many tokens as were asked for")
    quickest = sorted(decodes, key=lambda decode: decode.seconds)[:CHECKED]
    for decode in [*quickest, *LOT.sample(decodes, min(CHECKED, len(decodes)))]:
        read, tokens = [*decode.text.prompt, decode.text.first], [said.token for said in decode.said]
        logits = scorer.ask("score", arm=CHAMPION, read=read, said=tokens)["logits"]
        for place, (said, (highest, its)) in enumerate(zip(decode.said, logits, strict=True), start=1):
            if not highest - its <= tie:
                return _wrong(f"token {place} is {said.token}, whose logit is {highest - its:.3g} below the highest")
            if not abs(its - said.logit) <= tie:
                return _wrong(f"the logit of token {place} is {its:.6g}, not {said.logit:.6g}")
    return None


def _wrong(problem: str) -> Failure:
    return Failure(Status.WRONG, f"in a timed decode: {problem}")

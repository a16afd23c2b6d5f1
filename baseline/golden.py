"""The golden record: what the unmodified mlx-lm model answered, and whether other answers are the same."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

import baseline.torchless  # noqa: F401  before mlx-lm is
from baseline.durable import durable, file_checksum
from baseline.errors import CheckError, UsageError
from baseline.layout import first_problem
from baseline.questions import Answers, Prompt, Questions
from baseline.tolerance import Tolerance
from baseline.toolcalls import ToolScore, judge, score

RECORD = "golden.json"
ANSWERS = "golden.safetensors"
QUICK_DECODE = 16  # forced tokens of the quick subset
QUICK_TOOLS = 1


@dataclass(frozen=True)
class Fingerprint:
    """What a record holds for: the checkpoint's content, the dtype computed in, the libraries' releases."""

    model: str
    dtype: str
    mlx: str
    mlx_lm: str

    @classmethod
    def here(cls, model: str, dtype: str) -> "Fingerprint":
        return cls(model, dtype, version("mlx"), version("mlx-lm"))

    def require(self, other: "Fingerprint") -> None:
        """Raise CheckError naming what differs between this, which was recorded, and what runs now."""
        for name, recorded in asdict(self).items():
            if (found := getattr(other, name)) != recorded:
                raise CheckError(
                    f"the golden record is of {name} {recorded}, this is {found}; "
                    "record one for it with: nightforge golden record"
                )


@dataclass(frozen=True)
class Tools:
    """The calls that are wanted ({"name", "arguments"}), and which of mlx_lm.tool_parsers reads them."""

    parser: str
    expected: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Golden:
    """A record: questions, and the unmodified model's answers."""

    fingerprint: Fingerprint
    questions: Questions
    tools: Tools
    answers: Answers

    def quick(self) -> "Golden":
        """The part that a search asks of each candidate: a prompt, a few decoded tokens, a tool call."""
        prompt = self.questions.prompts[0]
        short = dataclasses.replace(prompt, forced=prompt.forced[:QUICK_DECODE])
        tools = dataclasses.replace(self.tools, expected=self.tools.expected[:QUICK_TOOLS])
        questions = dataclasses.replace(
            self.questions,
            prompts=(short,),
            windows=(),
            tool_prompts=self.questions.tool_prompts[:QUICK_TOOLS],
        )
        answers = Answers((self.answers.logits[0][: short.rows],), (), self.answers.tool_answers[:QUICK_TOOLS])
        return Golden(self.fingerprint, questions, tools, answers)

    def perplexity(self) -> float | None:
        return perplexity(self.answers)


@dataclass(frozen=True)
class GoldenReport:
    """`identical`: to the last bit. `tokens_equal`: each most likely token is golden; `ok` allows ties.

    KL(golden || answer) in nats, over all positions. `perplexity` and `tool_calls` are (golden, answer);
    perplexity is None where no window was asked. `reason` says what differs and where first; '' when `ok`.
    """

    ok: bool
    identical: bool
    tokens_equal: bool
    max_kl: float
    mean_kl: float
    perplexity: tuple[float, float] | None
    tool_calls: tuple[ToolScore, ToolScore]
    reason: str


@dataclass(frozen=True)
class _Record:
    """golden.json. `recorded_by`, `perplexity` and `tool_calls` are for whoever reads it."""

    fingerprint: Fingerprint
    recorded_by: str
    answers_checksum: str  # xxh3_64 of golden.safetensors
    perplexity: float | None
    tool_calls: ToolScore
    tools: Tools
    questions: Questions
    format: Literal["nightforge-golden"] = "nightforge-golden"
    version: Literal[1] = 1


def save(golden: Golden, folder: Path) -> None:
    """Write a record to `folder`. OSError when that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with durable(folder / ANSWERS) as partial:
        golden.answers.save(partial)
    known = golden.perplexity()
    fields = _Record(
        golden.fingerprint,
        f"nightforge {version('nightforge')}",
        file_checksum(folder / ANSWERS),
        known if known is None or math.isfinite(known) else None,
        tool_score(golden, golden.answers),
        golden.tools,
        golden.questions,
    )
    with durable(folder / RECORD) as partial:
        partial.write_text(json.dumps(asdict(fields), allow_nan=False))


def load(folder: Path) -> Golden:
    """Read a record. UsageError when `folder` holds none, CheckError when it is damaged."""
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"{folder} holds no golden record; make one with: nightforge golden record model=CHECKPOINT")
    try:
        fields = pydantic.TypeAdapter(_Record).validate_json(path.read_bytes())
        checksum = file_checksum(folder / ANSWERS)
    except pydantic.ValidationError as error:
        raise CheckError(f"{path} is corrupt: {first_problem(error)}") from None
    except OSError as error:
        raise CheckError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    if checksum != fields.answers_checksum:
        raise CheckError(f"{folder / ANSWERS} is corrupt: its checksum is not the one in {RECORD}")
    return Golden(fields.fingerprint, fields.questions, fields.tools, Answers.load(folder / ANSWERS))


def perplexity(answers: Answers) -> float | None:
    """exp of the mean -ln p over all windows, infinite where that is no float; None when there are none."""
    if not answers.nll:
        return None
    with np.errstate(over="ignore"):
        return float(np.exp(np.concatenate(answers.nll).mean(dtype=np.float64)))


def tool_score(golden: Golden, answers: Answers) -> ToolScore:
    """How good the tool calls among `answers` are."""
    pairs = zip(answers.tool_answers, golden.tools.expected, strict=True)
    return score(judge(text, expected, golden.tools.parser) for text, expected in pairs)


def kl_divergence(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[np.float64]:
    """KL(expected || got) in nats of each row of two [rows, vocabulary] arrays of logits, in float64."""
    p, q = (_log_softmax(logits.astype(np.float64)) for logits in (expected, got))
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def compare(golden: Golden, answers: Answers, tolerance: Tolerance | None = None) -> GoldenReport:
    """Judge answers to all of `golden`'s questions. A wrong shape or NaNs fail the check, no more."""
    if misfit := _misfit(golden.answers, answers):
        nothing = ToolScore(len(golden.tools.expected), 0, 0, 0)
        scores = (tool_score(golden, golden.answers), nothing)
        return GoldenReport(False, False, False, math.inf, math.inf, None, scores, misfit)
    pairs = list(zip(golden.answers.logits, answers.logits, strict=True))
    divergences = [kl_divergence(*pair) for pair in pairs]
    kl = np.concatenate(divergences)
    reason = next(_differences(golden, answers, divergences, tolerance or Tolerance()), "")
    expected, got = golden.perplexity(), perplexity(answers)
    return GoldenReport(
        ok=not reason,
        identical=_identical(golden.answers, answers),
        tokens_equal=all(bool((a.argmax(-1) == b.argmax(-1)).all()) for a, b in pairs),
        max_kl=float(kl.max()),
        mean_kl=float(kl.mean()),
        perplexity=None if expected is None or got is None else (expected, got),
        tool_calls=(tool_score(golden, golden.answers), tool_score(golden, answers)),
        reason=reason,
    )


def _misfit(golden: Answers, answers: Answers) -> str:
    """What makes the answers impossible to compare, '' if nothing."""
    for name in ("logits", "nll"):
        expected, got = getattr(golden, name), getattr(answers, name)
        if [a.shape for a in expected] != [a.shape for a in got]:
            return f"{name}: expected shapes {[a.shape for a in expected]}, got {[a.shape for a in got]}"
        for i, array in enumerate(got):
            if not np.isfinite(array).all():
                return f"{name} {i}: row {int(np.argwhere(~np.isfinite(array))[0][0])} holds NaN or infinity"
    if len(golden.tool_answers) != len(answers.tool_answers):
        return f"expected {len(golden.tool_answers)} tool answers, got {len(answers.tool_answers)}"
    return ""


def _identical(golden: Answers, answers: Answers) -> bool:
    pairs = zip(golden.logits + golden.nll, answers.logits + answers.nll, strict=True)
    return golden.tool_answers == answers.tool_answers and all(np.array_equal(a, b) for a, b in pairs)


def _differences(
    golden: Golden, answers: Answers, divergences: Sequence[NDArray[np.float64]], tolerance: Tolerance
) -> Iterator[str]:
    """What is out of tolerance, in the order in which it was asked."""
    for i, prompt in enumerate(golden.questions.prompts):
        yield from _row_differences(i, prompt, golden.answers.logits[i], answers.logits[i], divergences[i], tolerance)
    expected, got = golden.perplexity(), perplexity(answers)
    if expected is not None and got is not None and not abs(got / expected - 1) <= tolerance.perplexity:
        worst = [int(np.argmax(np.abs(a - b))) for a, b in zip(golden.answers.nll, answers.nll, strict=True)]
        yield f"perplexity: expected {expected:.4f}, got {got:.4f} (most at tokens {worst} of the windows)"
    for i, (wanted, before, after) in enumerate(
        zip(golden.tools.expected, golden.answers.tool_answers, answers.tool_answers, strict=True)
    ):
        if before != after and judge(after, wanted, golden.tools.parser).worse_than(
            judge(before, wanted, golden.tools.parser)
        ):
            yield f"tool prompt {i}: expected {before!r}, got {after!r}"


def _row_differences(
    number: int,
    prompt: Prompt,
    expected: NDArray[Any],
    got: NDArray[Any],
    divergence: NDArray[np.float64],
    tolerance: Tolerance,
) -> Iterator[str]:
    for row, kl in enumerate(divergence):
        token, other = int(expected[row].argmax()), int(got[row].argmax())
        gap = float(expected[row][token] - expected[row][other])
        if not (kl <= tolerance.kl and gap <= tolerance.tie):
            yield (
                f"prompt {number}, {_place(prompt, row)}: expected token {token}, got {other}, "
                f"KL {kl:.1e} (limit {tolerance.kl:.0e})"
            )


def _place(prompt: Prompt, row: int) -> str:
    decoded = row - len(prompt.positions) + 1
    return f"position {prompt.positions[row]}" if decoded <= 0 else f"decoded token {decoded}"

"""What a golden record asks a model, and a model's answers: what a candidate's process sees of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Prompt:
    """`positions`: those of `tokens` whose logits are asked for, the last one included. `forced`: the greedy
    continuation, fed token by token whatever the model under test prefers, so that one near-tie does not make
    all later positions incomparable."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    forced: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Logits rows of an answer: one a position, then one after each forced token but the last."""
        return len(self.positions) + len(self.forced) - 1


@dataclass(frozen=True)
class Questions:
    """Prompts to continue, windows of text to score (token lists), and tool prompts to answer greedily."""

    prompts: tuple[Prompt, ...]
    windows: tuple[tuple[int, ...], ...]
    tool_prompts: tuple[tuple[int, ...], ...]
    tool_tokens: int  # an answer's limit

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Questions":
        """The inverse of `to_json`. KeyError, TypeError or ValueError when `text` is something else."""
        fields = json.loads(text)
        prompts = tuple(
            Prompt(*(tuple(prompt[name]) for name in ("tokens", "positions", "forced"))) for prompt in fields["prompts"]
        )
        windows, tools = (tuple(map(tuple, fields[name])) for name in ("windows", "tool_prompts"))
        return cls(prompts, windows, tools, int(fields["tool_tokens"]))


@dataclass(frozen=True)
class Answers:
    """logits[i]: float32 [rows, vocabulary] of prompt i; nll[i]: float32 [tokens - 1], -ln p of each token of
    window i after its first; tool_answers[i]: the generated text, special tokens included."""

    logits: tuple[Floats, ...]
    nll: tuple[Floats, ...]
    tool_answers: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write a safetensors file; the texts are its metadata."""
        arrays = {f"logits.{i}": value for i, value in enumerate(self.logits)}
        arrays |= {f"nll.{i}": value for i, value in enumerate(self.nll)}
        metadata = {"tool_answers": json.dumps(self.tool_answers)}
        with path.open("wb") as stream:  # given a name, MLX would add a suffix to it
            mx.save_safetensors(stream, {name: mx.array(value) for name, value in arrays.items()}, metadata)

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """The inverse of `save`. ValueError, saying why, when the file is missing or something else.

        A candidate's process may have made it, so it is not read by MLX, which ends this process on some headers.
        """
        try:
            arrays, texts = _read(path)
            families = {kind: sum(name.startswith(f"{kind}.") for name in arrays) for kind in ("logits", "nll")}
            logits, nll = (tuple(arrays[f"{kind}.{i}"] for i in range(count)) for kind, count in families.items())
        except (OSError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not the answers to questions: {error!r}") from None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("the tool answers are no texts")
        return cls(logits, nll, tuple(texts))


def _read(path: Path) -> tuple[dict[str, Floats], Any]:
    """The arrays of a safetensors file, all of float32, and the texts of its metadata."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), content[start:]
    texts = json.loads(header.pop("__metadata__")["tool_answers"])
    return {name: _array(data, name, **entry) for name, entry in header.items()}, texts


def _array(data: bytes, name: str, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> Floats:
    if dtype != "F32":
        raise ValueError(f"{name} is of {dtype}, not of F32")
    begin, end = data_offsets
    return np.frombuffer(data[begin:end], "<f4").reshape(shape)


def answer(model: Any, tokenizer: Any, questions: Questions, progress: Progress | None = None) -> Answers:
    """Put the questions to an mlx-lm model (or one with the same call), each from an empty cache."""
    report = progress or (lambda _: None)
    logits, nll, texts = [], [], []
    for i, prompt in enumerate(questions.prompts):
        report(f"prompt {i + 1} of {len(questions.prompts)}")
        logits.append(continuation(model, prompt.tokens, prompt.positions, len(prompt.forced), prompt.forced)[0])
    for i, window in enumerate(questions.windows):
        report(f"perplexity window {i + 1} of {len(questions.windows)}")
        nll.append(negative_log_likelihood(model, window))
    for i, tool_prompt in enumerate(questions.tool_prompts):
        report(f"tool prompt {i + 1} of {len(questions.tool_prompts)}")
        texts.append(generate_text(model, tokenizer, tool_prompt, questions.tool_tokens))
    return Answers(tuple(logits), tuple(nll), tuple(texts))


def continuation(
    model: Any,
    tokens: Sequence[int],
    positions: Sequence[int],
    count: int,
    forced: Sequence[int] | None = None,
) -> tuple[Floats, tuple[int, ...]]:
    """Prefill `tokens`, then decode `count` of them: the logits [rows, vocabulary] and the tokens fed.

    Without `forced` the tokens are greedy: what a record is made of.
    """
    cache = make_prompt_cache(model)
    rows = [_forward(model, tokens, cache)[list(positions)]]
    fed: list[int] = []
    for i in range(count):
        fed.append(int(np.argmax(rows[-1][-1])) if forced is None else forced[i])
        if i < count - 1:
            rows.append(_forward(model, fed[-1:], cache))
    return np.concatenate(rows), tuple(fed)


def _forward(model: Any, tokens: Sequence[int], cache: Any = None) -> Floats:
    logits: mx.array = model(mx.array([list(tokens)]), cache=cache)[0]
    return np.array(logits.astype(mx.float32), dtype=np.float32)


def negative_log_likelihood(model: Any, tokens: Sequence[int]) -> Floats:
    """-ln p(token | those before it), in float32 [tokens - 1]; natural logarithm, computed in float64."""
    logits = _forward(model, tokens)[:-1].astype(np.float64)
    peak = logits.max(-1)
    chosen = logits[np.arange(len(logits)), list(tokens[1:])]
    return (np.log(np.exp(logits - peak[:, None]).sum(-1)) + peak - chosen).astype(np.float32)


def generate_text(model: Any, tokenizer: Any, tokens: Sequence[int], limit: int) -> str:
    """Greedy text of at most `limit` tokens, special tokens included, without the one that ends it."""
    cache = make_prompt_cache(model)
    feed, made = list(tokens), list[int]()
    while len(made) < limit:
        token = int(np.argmax(_forward(model, feed, cache)[-1]))
        if token in tokenizer.eos_token_ids:
            break
        made.append(token)
        feed = [token]
    return str(tokenizer.decode(made, skip_special_tokens=False))

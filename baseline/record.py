"""Making a golden record: the unmodified mlx-lm model is asked about held-out text and tools."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baseline.checkpoint import fingerprint
from baseline.engine.model import load_resident
from baseline.errors import UsageError
from baseline.golden import Fingerprint, Golden, Tools, save
from baseline.questions import Progress, Prompt, Questions, answer, continuation


@dataclass(frozen=True)
class Sizes:
    """How much a record asks; the defaults take about a minute on two cores with the bundled model.

    Windows and prompts are cut from the held-out texts in turn. `positions` of each prompt, evenly spaced,
    keep their logits, and so does each decoded token. Tool prompts of more than `tool_prompt_tokens` are left
    out; they are asked without thinking, where the chat template has that choice.
    """

    prompts: int = 3
    prompt_tokens: int = 48
    positions: int = 8
    decode_tokens: int = 64
    windows: int = 2
    window_tokens: int = 256
    tool_prompts: int = 16
    tool_prompt_tokens: int = 256
    tool_tokens: int = 160


def record(
    checkpoint: Path,
    folder: Path,
    heldout: Path,
    progress: Progress | None = None,
    sizes: Sizes | None = None,
    dtype: str = "float32",
) -> Golden:
    """Ask the unmodified mlx-lm model of `checkpoint` and write its answers to `folder`.

    `heldout` holds *.txt texts and, for a model that calls tools, tools.jsonl (messages, tools, expected).
    UsageError when one of them is not what it should be or `folder` cannot be written.
    """
    identity = Fingerprint.here(fingerprint(checkpoint), dtype)
    try:
        model, tokenizer = load_resident(checkpoint, dtype)
    except ValueError as error:  # a family that mlx-lm does not know, weights that do not fit the config
        raise UsageError(f"{checkpoint}: mlx-lm cannot load it: {str(error).splitlines()[0]}") from None
    questions, tools = _ask(model, tokenizer, heldout, sizes or Sizes())
    golden = Golden(identity, questions, tools, answer(model, tokenizer, questions, progress))
    try:
        save(golden, folder)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return golden


def _ask(model: Any, tokenizer: Any, heldout: Path, sizes: Sizes) -> tuple[Questions, Tools]:
    texts = _texts(tokenizer, heldout, sizes)
    start = sizes.prompts * sizes.prompt_tokens  # windows begin where no prompt reaches
    prompts = _cut(texts, sizes.prompts, sizes.prompt_tokens, 0)
    positions = tuple(int(p) for p in np.linspace(0, sizes.prompt_tokens - 1, sizes.positions))
    asked = tuple(
        Prompt(prompt, positions, continuation(model, prompt, positions, sizes.decode_tokens)[1]) for prompt in prompts
    )
    tool_prompts, tools = _tool_prompts(tokenizer, heldout / "tools.jsonl", sizes)
    windows = _cut(texts, sizes.windows, sizes.window_tokens, start)
    return Questions(asked, windows, tool_prompts, sizes.tool_tokens), tools


def _texts(tokenizer: Any, heldout: Path, sizes: Sizes) -> list[list[int]]:
    """The first tokens of each text, as many as the prompts and windows could need of one."""
    files = sorted(heldout.glob("*.txt"))
    if not files:
        raise UsageError(f"{heldout} holds no held-out text (*.txt)")
    needed = sizes.prompts * sizes.prompt_tokens + sizes.windows * sizes.window_tokens
    texts = []
    for file in files:
        # 16 characters a token is more than any text has on average.
        tokens = tokenizer.encode(file.read_text()[: 16 * needed], add_special_tokens=False)[:needed]
        if len(tokens) < needed:
            raise UsageError(f"{file} has {len(tokens)} tokens; a golden record needs {needed}")
        texts.append(tokens)
    return texts


def _cut(texts: Sequence[list[int]], count: int, length: int, start: int) -> tuple[tuple[int, ...], ...]:
    """`count` pieces of `length` tokens: from `start` on, the first of each text, then the second, ..."""
    offsets = [start + i // len(texts) * length for i in range(count)]
    return tuple(tuple(texts[i % len(texts)][o : o + length]) for i, o in enumerate(offsets))


def _tool_prompts(tokenizer: Any, path: Path, sizes: Sizes) -> tuple[tuple[tuple[int, ...], ...], Tools]:
    if tokenizer.tool_parser is None or not path.is_file():
        return (), Tools("", ())
    parser = tokenizer.tool_parser.__module__.rpartition(".")[2]
    prompts: list[tuple[int, ...]] = []
    expected: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        tokens = tokenizer.apply_chat_template(
            row["messages"], tools=row["tools"], add_generation_prompt=True, enable_thinking=False
        )
        if len(tokens) <= sizes.tool_prompt_tokens and len(prompts) < sizes.tool_prompts:
            prompts.append(tuple(tokens))
            expected.append(row["expected"])
    return tuple(prompts), Tools(parser, tuple(expected))

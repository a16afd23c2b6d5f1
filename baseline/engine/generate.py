"""Text from an engine, as it comes, and where the time went."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_lm import stream_generate

from baseline.engine.engine import PREFILL_STEP, Engine, Usage
from baseline.errors import UsageError
from baseline.page_cache import between, cached_share, disk_bytes


@dataclass(frozen=True)
class Generated:
    """A generation: its text and tokens, decode speed, time to first token, and seconds by phase; the bytes of experts
    read a token, and the share of them from the page cache (None: not known, or nothing was read), without prefill's.

    The phases are those of the whole generation, prefill included: expert_read is time in reads, each op's name the
    time in its kernel, and rest what is left: MLX's own ops, graph building, evaluation.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    tokens_per_s: float
    ttft_s: float
    phases: dict[str, float]
    read_bytes_per_token: float
    cached: float | None


def generate(
    engine: Engine, prompt: Sequence[int], max_tokens: int, on_text: Callable[[str], None] = lambda _: None
) -> Generated:
    """Greedily continue `prompt` (token ids) by at most max_tokens; on_text gets each piece of text as it comes.

    Raises UsageError for an empty prompt or max_tokens below 1.
    """
    if not prompt or max_tokens < 1:
        raise UsageError("generate needs a prompt of at least one token, and max_tokens of at least 1")
    before, start = engine.usage(), time.perf_counter()
    first, read_bytes, disk = start, 0, None
    text: list[str] = []
    tokens: list[int] = []
    for response in stream_generate(
        engine.model, engine.tokenizer, list(prompt), max_tokens=max_tokens, prefill_step_size=PREFILL_STEP
    ):
        if not text:
            first, read_bytes, disk = time.perf_counter(), engine.usage().read_bytes, disk_bytes()
        text.append(response.text)
        tokens.append(response.token)
        on_text(response.text)
    end, after, from_disk = time.perf_counter(), engine.usage(), between(disk, disk_bytes())
    decoded, read = max(len(tokens) - 1, 1), after.read_bytes - read_bytes
    return Generated(
        text="".join(text),
        tokens=tokens,
        prompt_tokens=len(prompt),
        tokens_per_s=decoded / (end - first),
        ttft_s=first - start,
        phases=phases(before, after, end - start),
        read_bytes_per_token=read / decoded,
        cached=cached_share(read, from_disk),
    )


def phases(before: Usage, after: Usage, seconds: float) -> dict[str, float]:
    """Seconds by phase between two usages that are `seconds` apart."""
    spent = {"expert_read": after.read_s - before.read_s}
    spent |= {op: after.kernel_s[op] - before.kernel_s[op] for op in after.kernel_s}
    return spent | {"rest": seconds - sum(spent.values())}

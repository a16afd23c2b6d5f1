"""What the bench runs in processes of their own: the streamed engine and the resident mlx-lm model."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from baseline.engine import Engine, IoPolicy, load_resident
from baseline.engine.experts import StreamingExperts, one_token
from baseline.variant import Choice, parse_variant
from harness.bench.reads import read_experts
from harness.cache_state import expert_files, warm

ALLOWANCE = 400_000_000  # bytes beside weights and expert buffers, in DESIGN's bound
Choices = Mapping[str, tuple[str, Mapping[str, int]]]
"""By op: the file of a variant, and its tunables."""


@dataclass(frozen=True)
class Memory:
    """Bytes: the peak of a process, and what may be resident: weights, two tokens' worth of experts, ALLOWANCE."""

    peak: int
    bound: int


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of a layer's routed experts for one token: all of it, its reads alone, its kernels alone."""

    whole: float
    read: float
    kernels: float


class Streamed:
    """The engine, its experts on disk."""

    def __init__(
        self, packed: Path, dtype: str, top_k: int | None, choices: Choices, kernels: Path, cache: Path
    ) -> None:
        self.engine = Engine.load(packed, dtype, top_k)
        self.choices = {op: Choice(parse_variant(Path(path)), values) for op, (path, values) in choices.items()}
        self.io: dict[str, int | str] = {}
        self.folders = {"kernels": kernels, "cache": cache}
        self.top_k = self.engine.experts[0].group // len(self.engine.experts)
        self.vocabulary = int(self.engine.logits([0]).shape[-1])
        self.random = np.random.default_rng(0)
        warm(expert_files(packed))

    def configure(self, io: Mapping[str, int | str]) -> None:
        """Another I/O policy. The same one again keeps what is compiled, and the pages that are mapped."""
        if io != self.io:
            self.engine.configure(self.choices, IoPolicy(**io), **self.folders)  # type: ignore[arg-type]
        self.io = dict(io)

    def decode(self, io: Mapping[str, int | str], tokens: int) -> float:
        """Tokens/s of a greedy decode after a prompt of 4 random tokens; the first token, a prefill, is not in it."""
        self.configure(io)
        return tokens / sum(self.engine.decode(self._prompt(4), tokens + 1).token_s)

    def prefill(self, io: Mapping[str, int | str], tokens: int) -> float:
        """Tokens/s of the prefill of a prompt of random tokens."""
        self.configure(io)
        return tokens / self.engine.decode(self._prompt(tokens), 1).prefill_s

    def _prompt(self, tokens: int) -> list[int]:
        return [int(token) for token in self.random.integers(0, self.vocabulary, tokens)]

    def layer(self, io: Mapping[str, int | str]) -> LayerTimes:
        """Means over the model's layers, each for a random token that chooses random experts.

        RuntimeError where the configuration has no kernels for the experts.
        """
        self.configure(io)
        layers = self.engine.experts
        if any(layer.gate_up is None for layer in layers):
            raise RuntimeError("no kernels for this model's experts are configured")
        before = self.engine.usage()
        records = [read_experts(layer.file, self._chosen(layer), layer.io) for layer in layers]
        between = self.engine.usage()
        for layer, record in zip(layers, records, strict=True):
            self._compute(layer, record)
        after = self.engine.usage()
        del records
        whole = sum(self._whole(layer) for layer in layers)
        kernels = sum(after.kernel_s[op] - between.kernel_s[op] for op in ("expert_gate_up", "expert_down"))
        return LayerTimes(*(1e3 * s / len(layers) for s in (whole, between.read_s - before.read_s, kernels)))

    def _chosen(self, layer: StreamingExperts) -> mx.array:
        count = layer.slots.layer.experts
        chosen = mx.array(self.random.permutation(count)[: self.top_k].astype(np.int32))
        mx.eval(chosen)
        return chosen

    def _hidden(self, layer: StreamingExperts) -> mx.array:
        x = mx.random.normal((1, 1, layer.slots.outputs("down_proj"))).astype(self.engine.dtype)
        mx.eval(x)
        return x

    def _whole(self, layer: StreamingExperts) -> float:
        """Seconds from Python's call to the evaluated sum of the experts' products."""
        x, chosen = self._hidden(layer), self._chosen(layer)[None, None]
        scores: Any = mx.full(chosen.shape, 1 / chosen.size)
        mx.eval(scores)
        start = time.perf_counter()
        mx.eval((layer(x, chosen) * scores[..., None]).sum(axis=-2))
        return time.perf_counter() - start

    def _compute(self, layer: StreamingExperts, records: mx.array) -> None:
        """The two kernels of the experts, on records that were read before."""
        x, k = self._hidden(layer).reshape(1, -1), records.shape[0]
        row, slot = one_token(k)
        assert layer.gate_up is not None
        assert layer.down is not None
        shape = [(k, layer.slots.outputs("gate_proj"))]
        (h,) = layer.gate_up([x, records, row, slot], shape, [x.dtype], [1, k, k])
        down, outputs = (layer.down_combined, 1) if layer.down_combined is not None else (layer.down, k)
        mx.eval(down([h, records, slot, mx.ones(k)], [(outputs, x.shape[-1])], [x.dtype], [k, k]))

    def memory(self) -> Memory:
        """Of this process so far."""
        resident = sum(p.nbytes for _, p in tree_flatten(self.engine.model.parameters()))
        token = sum(self.top_k * layer.slots.layer.stride for layer in self.engine.experts)
        return Memory(peak_bytes(), resident + 2 * token + ALLOWANCE)


class Resident:
    """The unmodified mlx-lm model, all of it in memory."""

    def __init__(self, checkpoint: Path, dtype: str, top_k: int | None) -> None:
        self.model, _ = load_resident(checkpoint, dtype, top_k)
        self.cache = make_prompt_cache(self.model)
        self.token = self._next(1)

    def _next(self, token: int) -> int:
        logits: mx.array = self.model(mx.array([[token]]), cache=self.cache)[0, -1]
        return int(np.array(mx.argmax(logits)))

    def decode(self, tokens: int) -> float:
        """Tokens/s of the next greedy tokens of one long text."""
        start = time.perf_counter()
        for _ in range(tokens):
            self.token = self._next(self.token)
        return tokens / (time.perf_counter() - start)

    def memory(self) -> int:
        """Peak bytes of this process so far."""
        return peak_bytes()


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    if sys.platform == "linux":  # ru_maxrss would begin at the size of the process that started this one
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

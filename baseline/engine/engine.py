"""`Engine`: a packed model, loaded once, whose kernels and I/O policy can be changed at any time."""

import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_tokenizer

from baseline import native
from baseline.contract import Instance
from baseline.engine.attention import KernelAttention
from baseline.engine.compiled import CompiledBlock
from baseline.engine.conv import KernelConv
from baseline.engine.delta import KernelDelta
from baseline.engine.experts import StreamingExperts
from baseline.engine.kernels import OpKernels
from baseline.engine.linear import KernelLinear
from baseline.engine.model import load_streamed
from baseline.errors import UsageError
from baseline.manifest import Manifest, check_copies, load_manifest
from baseline.policy import IoPolicy
from baseline.variant import Choice

# Tokens of a prompt that one pass prefills: bounds the activations that live at once.
PREFILL_STEP = 512
# What MLX keeps of freed memory, for the next layer to reuse; expert buffers have a pool of their own.
FREED_BYTES = 64 << 20


@dataclass(frozen=True)
class Decoded:
    """A greedy continuation: tokens [n], their logits [n, vocab], seconds of the prefill and of each token."""

    tokens: list[int]
    logits: np.ndarray[Any, np.dtype[np.float32]]
    prefill_s: float
    token_s: list[float]


@dataclass(frozen=True)
class Usage:
    """Seconds and bytes since the engine was loaded, by phase; the difference of two is what a piece of work took."""

    read_s: float
    read_bytes: int
    reads: int
    kernel_s: Mapping[str, float]


class Engine:
    """A streamed model.

    Its memory is the resident weights, at most two tokens' worth of expert buffers, and 400 MB.
    """

    def __init__(self, model: nn.Module, packed: Path, manifest: Manifest, dtype: mx.Dtype) -> None:
        self.model = model
        self.packed = packed
        self.manifest = manifest
        self.dtype = dtype
        self.kernels: dict[str, OpKernels] = {}
        modules = [m for _, m in model.named_modules()]
        self.experts = [m for m in modules if isinstance(m, StreamingExperts)]
        self.linears = [m for m in modules if isinstance(m, KernelLinear)]
        self.deltas = [m for m in modules if isinstance(m, KernelDelta)]
        self.attentions = [m for m in modules if isinstance(m, KernelAttention)]
        self.convs = [m for m in modules if isinstance(m, KernelConv)]
        self.blocks = [m for m in modules if isinstance(m, CompiledBlock)]
        self.configure()

    @classmethod
    def load(cls, packed: Path, dtype: str | None = "float32", top_k: int | None = None) -> "Engine":
        """Load a packed model. dtype None computes in the checkpoint's own.

        Raises UsageError and CheckError as load_manifest does, and UsageError for a top_k out of range.
        """
        manifest = load_manifest(packed)
        check_copies(packed, manifest)
        model = load_streamed(packed, manifest, dtype, top_k)
        mx.set_cache_limit(FREED_BYTES)
        compute = getattr(mx, dtype) if dtype else next(p.dtype for p in norms(model))
        return cls(model, packed, manifest, compute)

    @cached_property
    def tokenizer(self) -> Any:
        """mlx-lm's, loaded when it is first asked for."""
        return load_tokenizer(self.packed)

    def configure(
        self,
        choices: Mapping[str, Choice] | None = None,
        io: IoPolicy | None = None,
        *,
        kernels: Path | None = None,
        cache: Path | None = None,
        watermarked: Collection[str] = (),
    ) -> None:
        """Set the variant of each op and the I/O policy; an op that `choices` does not name runs on MLX's own.

        Beside CPU variants, attention and the delta-nets' convolutions run on kernels of the engine's own, and what
        stays the same from token to token is compiled.

        kernels is the folder of the contracts, cache that of the compiled libraries; watermarked are the ops whose
        kernels are to give themselves away (see `compiled`). Raises what a build raises.
        """
        io = io or IoPolicy()
        if choices and (kernels is None or cache is None):
            raise UsageError("choices need the folders `kernels` and `cache`")
        native.reserve_threads(io.threads)
        # Reading ahead takes the buffers of the next token too.
        native.limit_buffers(buffer_bytes(self.model) * (2 if io.prefetch == "previous" else 1))
        self.kernels = {
            op: OpKernels(op, choice, self.instances(op), kernels, cache, op in watermarked)  # type: ignore[arg-type]
            for op, choice in (choices or {}).items()
        }
        for layer in self.experts:
            gate_up = self._find("expert_gate_up", layer.slots.instance(self.dtype))
            down, combined = (self._find("expert_down", i) for i in layer.down_instances(self.dtype))
            layer.configure(io, gate_up, down, combined, self.dtype)
        for layer, after in pairwise([*self.experts, *self.experts[:1]]):
            if layer.prefetch is not None:
                layer.prefetch.set_next(after.prefetch)
        for linear in self.linears:
            linear.configure(self._find("qmatvec", linear.instance(self.dtype)), self.dtype)
        for delta in self.deltas:
            delta.configure(self._find("gated_delta_step", delta.instance(self.dtype)), self.dtype)
        on_cpu = {choice.variant.target for choice in (choices or {}).values()} == {"cpu"}
        fixed: list[KernelAttention | KernelConv] = [*self.attentions, *self.convs]
        for module in fixed:
            module.configure(cache if on_cpu else None)
        # What is evaluated in the middle of a token, or on a stream of its own thread, is no graph to be kept.
        kept = on_cpu and io.schedule == "graph" and io.stream == "shared"
        compiled: list[CompiledBlock | KernelDelta] = [*self.blocks, *self.deltas]
        for layer_part in compiled:
            layer_part.compile(kept)

    def _find(self, op: str, instance: Instance | None) -> native.CpuKernel | None:
        return self.kernels[op].find(instance) if op in self.kernels else None

    def instances(self, op: str) -> list[Instance | None]:
        """The constants of all modules that run `op`: none in a model that has no such layers."""
        if op == "qmatvec":
            return [linear.instance(self.dtype) for linear in self.linears]
        if op == "gated_delta_step":
            return [delta.instance(self.dtype) for delta in self.deltas]
        if op == "expert_down":
            return [i for layer in self.experts for i in layer.down_instances(self.dtype)]
        return [layer.slots.instance(self.dtype) for layer in self.experts]

    def usage(self) -> Usage:
        """Totals of this process so far."""
        counters = native.counters()
        return Usage(
            counters["read_seconds"],
            counters["read_bytes"],
            counters["reads"],
            {op: kernels.seconds for op, kernels in self.kernels.items()},
        )

    def logits(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The logits [T, vocab] at each of `tokens`, from an empty cache."""
        cache = make_prompt_cache(self.model)
        steps = [tokens[i : i + PREFILL_STEP] for i in range(0, len(tokens), PREFILL_STEP)]
        return np.concatenate([to_numpy(self.model(mx.array([list(s)]), cache=cache)[0]) for s in steps])

    def decode(self, prompt: Sequence[int], n: int) -> Decoded:
        """Greedily decode n tokens after `prompt`, however the text would end."""
        start = time.perf_counter()
        steps = self.steps(prompt)
        outputs = [next(steps)]
        token_s: list[float] = []
        prefilled = time.perf_counter()
        for _ in range(n - 1):
            before = time.perf_counter()
            outputs.append(next(steps))
            token_s.append(time.perf_counter() - before)
        logits = np.stack(outputs)
        return Decoded([int(row.argmax()) for row in logits], logits, prefilled - start, token_s)

    def steps(self, prompt: Sequence[int]) -> Generator[np.ndarray[Any, np.dtype[np.float32]], int | None, None]:
        """The logits [vocab] after the prompt, then after each greedy token, without end. A token that is sent comes in
        place of the greedy one."""
        cache = make_prompt_cache(self.model)
        head, last = list(prompt[:-1]), list(prompt[-1:])
        for start in range(0, len(head), PREFILL_STEP):
            self.model(mx.array([head[start : start + PREFILL_STEP]]), cache=cache)
            mx.eval([entry.state for entry in cache])
        row = to_numpy(self.model(mx.array([last]), cache=cache)[0, -1])
        while True:
            given = yield row
            token = int(row.argmax()) if given is None else given
            row = to_numpy(self.model(mx.array([[token]]), cache=cache)[0, -1])


def buffer_bytes(model: nn.Module) -> int:
    """One token's worth of expert buffers, in bytes: what the pool keeps for the next token to reuse."""
    layers = [m for _, m in model.named_modules() if isinstance(m, StreamingExperts)]
    return max(64 << 20, max(layer.group * layer.slots.layer.stride for layer in layers))


def norms(model: nn.Module) -> Iterator[mx.array]:
    """The weights of the norms: their dtype is that of a checkpoint's activations."""
    for _, module in model.named_modules():
        if isinstance(module, nn.RMSNorm | nn.LayerNorm):
            yield module.weight


def to_numpy(array: mx.array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An array evaluated and copied to float32.

    It is evaluated first: numpy drops the exception of a failed read and would take the buffer as it is.
    """
    array = array.astype(mx.float32)
    mx.eval(array)
    return np.array(array)

"""`KernelDelta`: a gated delta-net layer whose recurrence a `gated_delta_step` variant may take over."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gated_delta
from mlx_lm.models.cache import ArraysCache

from baseline import native
from baseline.contract import Instance
from baseline.engine.compiled import is_one_token
from baseline.engine.conv import Activated, KernelConv, activates
from baseline.engine.namespace import in_namespace

# What mlx-lm's layers call the op's sizes.
SIZES = {"HK": "num_k_heads", "HV": "num_v_heads", "DK": "head_k_dim", "DV": "head_v_dim"}
RECURRENCES = ("gated_delta_ops", "gated_delta_kernel")  # between which mlx-lm's `gated_delta_update` chooses
PART = 128  # tokens of a prompt that go through a layer at once
TOKENS = 16  # whose states, of some megabytes each, exist at once
Stepped = tuple[mx.array, mx.array]


def is_delta_net(module: nn.Module) -> bool:
    """Whether a module is a layer of mlx-lm that calls `gated_delta_update` and names its sizes as SIZES does."""
    call, update = type(module).__call__, gated_delta.gated_delta_update
    calls = inspect.isfunction(call) and call.__globals__.get(update.__name__) is update
    return calls and all(hasattr(module, name) for name in SIZES.values())


class Recurrence:
    """(q, k, v, g, beta, state, mask) -> (y, state): a kernel for tokens without a mask, else one of mlx-lm's own.

    q, k [B, T, HK, DK], v and y [B, T, HV, DV], g and beta [B, T, HV], state [B, HV, DV, DK].
    """

    def __init__(self) -> None:
        self.kernel: native.CpuKernel | None = None
        self.dtype: mx.Dtype | None = None

    def __call__(
        self,
        own: Callable[..., Stepped],
        q: mx.array,
        k: mx.array,
        v: mx.array,
        g: mx.array,
        beta: mx.array,
        state: mx.array,
        mask: mx.array | None = None,
    ) -> Stepped:
        tokens = q.shape[1]
        if tokens <= TOKENS:
            return self._some(own, (q, k, v, g, beta), state, mask)
        parts = []
        for start in range(0, tokens, TOKENS):
            now = slice(start, start + TOKENS)
            vectors = tuple(array[:, now] for array in (q, k, v, g, beta))
            y, state = self._some(own, vectors, state, None if mask is None else mask[:, now])
            mx.eval(y, state)  # or MLX would allocate the states of all tokens before it computes the first
            parts.append(y)
        return mx.concatenate(parts, axis=1), state

    def _some(
        self, own: Callable[..., Stepped], vectors: tuple[mx.array, ...], state: mx.array, mask: mx.array | None
    ) -> Stepped:
        if mask is not None or not self._fits(vectors, state):
            return own(*vectors, state, mask)
        outputs = []
        for token in range(vectors[0].shape[1]):
            y, state = self._step([array[:, token] for array in vectors], state)
            outputs.append(y)
        return (outputs[0][:, None] if len(outputs) == 1 else mx.stack(outputs, axis=1)), state

    def _fits(self, vectors: tuple[mx.array, ...], state: mx.array) -> bool:
        """Whether the kernel takes these: its types, and a decay a head, not one an element."""
        q, k, v, g, beta = vectors
        types = [array.dtype for array in (q, k, v, beta, g, state)]
        return self.kernel is not None and g.ndim == beta.ndim and types == [self.dtype] * 4 + [mx.float32] * 2

    def _step(self, vectors: list[mx.array], state: mx.array) -> Stepped:
        assert self.kernel is not None
        q, _, v, _, _ = vectors
        y, state = self.kernel([*vectors, state], [v.shape, state.shape], [q.dtype, state.dtype], [len(q)])
        return y, state


def is_filled(cache: Any) -> bool:
    """Whether a cache is one that `stepped` can take apart: of tokens before this one, and equally many everywhere."""
    if type(cache) is not ArraysCache or cache.lengths is not None:
        return False
    return cache[0] is not None and cache[1] is not None


def stepped(
    call: Callable[..., mx.array], layer: nn.Module, x: mx.array, conv: mx.array, state: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """A layer's call for one token, without side effects: x [1, 1, H] and what the cache holds -> y, and that anew."""
    cache = ArraysCache(size=2)
    cache[0], cache[1] = conv, state
    y = call(layer, x, None, cache)
    return y, cache[0], cache[1]


class KernelDelta(nn.Module):
    """A gated delta-net layer of mlx-lm, which it wraps, with a `Recurrence` that can be set.

    The layer's `__call__` and mlx-lm's `gated_delta_update` run as they are written, in a namespace in which both
    recurrences that the latter chooses between are this layer's: without a kernel the outputs stay mlx-lm's to the
    last bit.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.recurrence = Recurrence()
        ours = {name: partial(self.recurrence, getattr(gated_delta, name)) for name in RECURRENCES}
        update = in_namespace(gated_delta.gated_delta_update, ours)
        call: Any = type(layer).__call__
        names: dict[str, Any] = {update.__name__: update}
        if activates(type(layer), "conv1d"):
            layer.conv1d, names["nn"] = KernelConv(layer.conv1d), Activated()
        self.call = in_namespace(call, names)
        self.one: Callable[[mx.array, mx.array, mx.array], tuple[mx.array, mx.array, mx.array]] | None = None

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        """(x [B, T, H], mask [B, T], the layer's cache) -> [B, T, H], as the layer's own call.

        A long prompt goes through the layer in parts, which its cache connects: less memory, and the same outputs.
        """
        if self.one is not None and is_one_token(x) and mask is None and is_filled(cache):
            y, cache[0], cache[1] = self.one(x, cache[0], cache[1])
            return y
        if cache is None or cache.lengths is not None or x.shape[1] <= PART:
            return self._some(x, mask, cache)
        parts = [slice(start, start + PART) for start in range(0, x.shape[1], PART)]
        ys = [self._some(x[:, part], None if mask is None else mask[:, part], cache) for part in parts]
        return mx.concatenate(ys, axis=1)

    def _some(self, x: mx.array, mask: mx.array | None, cache: Any) -> mx.array:
        y: mx.array = self.call(self.layer, x, mask, cache)
        if cache is not None and x.shape[1] > TOKENS:
            mx.eval(y, cache.state)  # what the cache keeps of a prompt is its last tokens, and lazy it keeps them all
        return y

    def configure(self, kernel: native.CpuKernel | None, dtype: mx.Dtype) -> None:
        """Set the kernel, which takes activations of dtype; None leaves the recurrence to mlx-lm."""
        self.recurrence.kernel, self.recurrence.dtype = kernel, dtype

    def compile(self, on: bool) -> None:
        """Build the graph of one token anew, at its next call; or leave all calls as they are."""
        self.one = mx.compile(partial(stepped, self.call, self.layer)) if on else None

    def instance(self, dtype: mx.Dtype) -> Instance:
        """The compile-time constants of this layer's step."""
        sizes = {name: int(getattr(self.layer, attribute)) for name, attribute in SIZES.items()}
        return {**sizes, "T": str(dtype).removeprefix("mlx.core.")}

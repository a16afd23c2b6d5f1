"""`KernelDelta`: a gated delta-net layer whose one-token steps a `gated_delta_step` variant may take over."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gated_delta

from baseline import native
from baseline.contract import Instance

# What mlx-lm's layers call the op's sizes.
SIZES = {"HK": "num_k_heads", "HV": "num_v_heads", "DK": "head_k_dim", "DV": "head_v_dim"}
RECURRENCES = ("gated_delta_ops", "gated_delta_kernel")  # between which mlx-lm's `gated_delta_update` chooses
Stepped = tuple[mx.array, mx.array]


def is_delta_net(module: nn.Module) -> bool:
    """Whether a module is a layer of mlx-lm that calls `gated_delta_update` and names its sizes as SIZES does."""
    call, update = type(module).__call__, gated_delta.gated_delta_update
    calls = inspect.isfunction(call) and call.__globals__.get(update.__name__) is update
    return calls and all(hasattr(module, name) for name in SIZES.values())


def in_namespace(function: FunctionType, names: Mapping[str, Any]) -> FunctionType:
    """`function`, its code shared, with other objects behind some of the global names that it uses."""
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


class Recurrence:
    """(q, k, v, g, beta, state, mask) -> (y, state): a kernel for one token without a mask, else one of mlx-lm's own.

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
        one = mask is None and q.shape[1] == 1 and g.ndim == beta.ndim  # a decay a head, not one an element
        types = [array.dtype for array in (q, k, v, beta, g, state)]
        if self.kernel is None or not one or types != [self.dtype] * 4 + [mx.float32] * 2:
            return own(q, k, v, g, beta, state, mask)
        y, state = self.kernel([q, k, v, g, beta, state], [v.shape, state.shape], [q.dtype, state.dtype], [len(q)])
        return y, state


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
        self.call = in_namespace(call, {update.__name__: update})

    def __call__(self, *arguments: Any, **options: Any) -> mx.array:
        """What the layer's own call takes and gives: (x [B, T, H], mask, cache) -> [B, T, H]."""
        y: mx.array = self.call(self.layer, *arguments, **options)
        return y

    def configure(self, kernel: native.CpuKernel | None, dtype: mx.Dtype) -> None:
        """Set the kernel, which takes activations of dtype; None leaves the recurrence to mlx-lm."""
        self.recurrence.kernel, self.recurrence.dtype = kernel, dtype

    def instance(self, dtype: mx.Dtype) -> Instance:
        """The compile-time constants of this layer's step."""
        sizes = {name: int(getattr(self.layer, attribute)) for name, attribute in SIZES.items()}
        return {**sizes, "T": str(dtype).removeprefix("mlx.core.")}

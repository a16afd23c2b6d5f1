"""`KernelAttention`: an attention layer whose products with cached keys and values a compiled kernel may take over."""

import inspect
from functools import cache as once
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import base
from mlx_lm.models.cache import KVCache

from baseline import native
from baseline.engine.namespace import in_namespace
from baseline.probe import cores
from baseline.targets import cpu

ATTEND = "scaled_dot_product_attention"


def is_attention(module: nn.Module) -> bool:
    """Whether a module is a layer of mlx-lm that calls its `scaled_dot_product_attention`."""
    call = type(module).__call__
    names = inspect.isfunction(call) and ATTEND in call.__code__.co_names
    return bool(names and call.__globals__.get(ATTEND) is base.scaled_dot_product_attention)


@once
def _constant(value: float) -> mx.array:
    """Made once, not in each layer of each token."""
    array = mx.array([value], mx.float32)
    mx.eval(array)
    return array


class Attend:
    """mlx-lm's `scaled_dot_product_attention`: a kernel for causal attention in float32, else mlx-lm's own."""

    def __init__(self) -> None:
        self.kernel: native.CpuKernel | None = None

    def __call__(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        cache: Any,
        scale: float,
        mask: Any,
        sinks: mx.array | None = None,
    ) -> mx.array:
        """queries [B, H, T, D], keys and values [B, KV, S, D] -> [B, H, T, D]."""
        if self.kernel is None or sinks is not None or not self._fits(queries, keys, values, cache, mask):
            y: mx.array = base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)
            return y
        length = keys.shape[2]
        if type(cache) is KVCache:  # whose arrays are dense; what it gives out is a part of them
            keys, values = cache.keys, cache.values
        dims = [*queries.shape[:2], keys.shape[1], queries.shape[2], length, keys.shape[2]]
        (y,) = self.kernel([queries, keys, values, _constant(scale)], [queries.shape], [queries.dtype], dims)
        return y

    def _fits(self, queries: mx.array, keys: mx.array, values: mx.array, cache: Any, mask: Any) -> bool:
        if hasattr(cache, "bits"):  # a quantised cache gives out tuples
            return False
        causal = (isinstance(mask, str) and mask == "causal") or (mask is None and queries.shape[2] == 1)
        floats = queries.dtype == keys.dtype == values.dtype == mx.float32
        same = keys.shape == values.shape and queries.shape[3] == keys.shape[3] and queries.shape[2] <= keys.shape[2]
        return causal and floats and same


class KernelAttention(nn.Module):
    """An attention layer of mlx-lm, which it wraps, with an `Attend` that can be set.

    The layer's `__call__` runs as it is written, in a namespace in which `scaled_dot_product_attention` is this
    layer's: without a kernel the outputs stay mlx-lm's to the last bit.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.attend = Attend()
        call: Any = type(layer).__call__
        self.call = in_namespace(call, {ATTEND: self.attend})

    def __call__(self, *arguments: Any, **options: Any) -> mx.array:
        """What the layer's own call takes and gives: (x [B, T, H], mask, cache) -> [B, T, H]."""
        y: mx.array = self.call(self.layer, *arguments, **options)
        return y

    def configure(self, cache: Path | None) -> None:
        """Run on a kernel, built in a folder or taken from it; None leaves attention to MLX. Raises as a build does.

        A layer that does not say how wide its heads are, or whose heads do not fill vectors, stays with MLX too.
        """
        width = getattr(self.layer, "head_dim", None)
        self.attend.kernel = attention_kernel(width, cache) if cache and isinstance(width, int) else None


def attention_kernel(width: int, cache: Path) -> native.CpuKernel | None:
    """For heads of `width` floats, on all cores; None where those do not fill vectors."""
    if width % 32:
        return None
    return native.CpuKernel(str(cpu.build_fixed("attention", {"D": width}, cache)), "attend", cores())

"""Attention on a kernel: against float64 and against MLX's own, with caches of every kind."""

from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models import base, qwen3_next
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache

from baseline.engine import Engine
from baseline.engine.attention import Attend, KernelAttention, attention_kernel, is_attention
from baseline.pack import pack
from baseline.variant import Choice, list_variants
from tests.models import TINY_MOE
from tests.streamed import KERNELS, LAYOUT, PROMPT

SHAPES = st.tuples(
    st.integers(1, 2),  # batch
    st.integers(1, 3),  # heads of keys
    st.integers(1, 5),  # queries' heads for each
    st.integers(1, 40),  # tokens
    st.integers(0, 600),  # keys before them
    st.sampled_from([32, 64, 128, 256]),
)


def with_kernel(width: int, cache: Path) -> Attend:
    attend = Attend()
    attend.kernel = attention_kernel(width, cache)
    return attend


def exact(q: mx.array, k: mx.array, v: mx.array, scale: float) -> np.ndarray:
    """Causal attention in float64."""
    q, k, v = (np.array(a).astype(np.float64) for a in (q, k, v))
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], axis=1) for a in (k, v))
    scores = np.einsum("bhtd,bhsd->bhts", q, k) * scale
    tokens, keys = scores.shape[2:]
    seen = np.arange(keys)[None] <= np.arange(tokens)[:, None] + keys - tokens
    weights = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return weights / weights.sum(-1, keepdims=True) @ v


def normal(seed: int, *shape: int) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(max_examples=40)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), loud=st.sampled_from([1.0, 30.0]))
def test_it_is_as_near_to_float64_as_mlx(cache: Path, shape: tuple[int, ...], seed: int, loud: float) -> None:
    batch, key_heads, group, tokens, before, width = shape
    attend, store = with_kernel(width, cache), KVCache()
    q = normal(seed, batch, tokens, key_heads * group, width).transpose(0, 2, 1, 3) * loud
    k, v = (normal(seed + i, batch, key_heads, before + tokens, width) for i in (1, 2))
    if before:
        store.update_and_fetch(k[:, :, :before], v[:, :, :before])
    keys, values = store.update_and_fetch(k[:, :, before:], v[:, :, before:])
    mask = "causal" if tokens > 1 else None
    got = np.array(attend(q, keys, values, store, width**-0.5, mask))
    own = np.array(base.scaled_dot_product_attention(q, keys, values, store, width**-0.5, mask))
    wanted = exact(q, k, v, width**-0.5)
    # A weight errs as its exponent does: by the size of the scores.
    size = 1 + np.abs(np.array(q)).max() * np.abs(np.array(k)).max() * width**0.5
    assert np.abs(got - wanted).max() <= 2 * np.abs(own - wanted).max() + 1e-7 * size * np.abs(np.array(v)).max()


@pytest.mark.parametrize("kind", ["mask", "whole", "rotating", "quantized", "half"])
def test_what_the_kernel_does_not_do_is_mlx_lms_own(cache: Path, kind: str) -> None:
    attend = with_kernel(64, cache)
    q, k, v = normal(0, 1, 4, 5, 64), normal(1, 1, 2, 5, 64), normal(2, 1, 2, 5, 64)
    store = {"rotating": RotatingKVCache(max_size=4), "quantized": QuantizedKVCache()}.get(kind, KVCache())
    if kind == "half":
        q, k, v = (a.astype(mx.bfloat16) for a in (q, k, v))
    keys, values = store.update_and_fetch(k, v)
    masks = {"mask": mx.tril(mx.ones((5, 5), mx.bool_)), "whole": None}
    mask = masks.get(kind, "causal")
    got = attend(q, keys, values, store, 0.125, mask)
    if kind == "quantized":  # mlx-lm multiplied the queries in place
        q /= 0.125
    own = base.scaled_dot_product_attention(q, keys, values, store, 0.125, mask)
    if kind == "rotating":  # its keys are all there is, and the kernel takes them as they are
        assert mx.allclose(got, own, atol=1e-5)
    else:
        assert mx.array_equal(got, own)


def small_layer() -> nn.Module:
    arguments = SimpleNamespace(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        attention_bias=False,
        rms_norm_eps=1e-6,
        partial_rotary_factor=0.5,
        rope_theta=1e4,
        rope_scaling=None,
        max_position_embeddings=512,
    )
    return qwen3_next.Qwen3NextAttention(arguments)


def test_without_a_kernel_a_layer_is_mlx_lms_to_the_last_bit() -> None:
    own = small_layer()
    assert is_attention(own) and not is_attention(nn.Linear(2, 2)) and not is_attention(KernelAttention(own))
    x = normal(0, 1, 6, 64)
    assert mx.array_equal(KernelAttention(own)(x, "causal", KVCache()), own(x, "causal", KVCache()))


def test_widths_that_fill_no_vectors_have_no_kernel(cache: Path) -> None:
    assert attention_kernel(48, cache) is None
    for width in (48, None):
        own = small_layer()
        own.head_dim = width
        layer = KernelAttention(own)
        layer.configure(cache)
        assert layer.attend.kernel is None


def test_the_engine_runs_it_beside_cpu_kernels_alone(cache: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(TINY_MOE, packed, LAYOUT)
    engine = Engine.load(packed)
    own = engine.logits(PROMPT)
    assert engine.attentions and all(layer.attend.kernel is None for layer in engine.attentions)
    weights = [path for path, _ in tree_flatten(engine.model.parameters()) if "conv" in path]
    assert len(engine.convs) == len(engine.deltas) == len(weights) > 0  # none is counted twice
    plain = next(v for v in list_variants(KERNELS, "gated_delta_step", "cpu") if v.name == "plain")
    engine.configure({"gated_delta_step": Choice.defaults(plain)}, kernels=KERNELS, cache=cache)
    assert all(layer.attend.kernel is not None for layer in engine.attentions)
    assert all(conv.kernel is not None for conv in engine.convs)
    assert 0 < np.abs(engine.logits(PROMPT) - own).max() < 1e-3
    engine.configure()
    assert np.array_equal(engine.logits(PROMPT), own)

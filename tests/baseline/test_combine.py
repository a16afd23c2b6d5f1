"""The routing-weighted sum inside expert_down: which blocks get it, when it runs, and what happens otherwise."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baseline.engine import Engine, IoPolicy
from baseline.engine.combine import Products, combines
from baseline.layout import load_layout
from baseline.pack import pack
from baseline.variant import Choice, parse_variant
from tests.kernel_call import KERNELS
from tests.models import TINY_MOE, make_checkpoint

PROMPT = [(37 * i + 11) % 4900 for i in range(12)]
OPS = ("expert_gate_up", "expert_down")


class OneNumber:
    """A block that hands its experts' products to a function of MLX, which would refuse a stand-in."""

    def __call__(self, x: Any, scores: Any) -> Any:
        y = self.experts(x)
        return mx.sum(y * scores[..., None], axis=-2)

    experts: Callable[[Any], Any]


class Kept:
    """A block that needs the products once more behind their sum."""

    def __call__(self, x: Any, scores: Any) -> Any:
        y = self.experts(x)
        z = (y * scores[..., None]).sum(axis=-2)
        return mx.concatenate([z, y[..., 0, :]])

    experts: Callable[[Any], Any]


class Summed:
    """A block as most of mlx-lm's are written."""

    def __call__(self, x: Any, scores: Any) -> Any:
        y = self.experts(x)
        y = (y * scores[..., None]).sum(axis=-2).astype(y.dtype)
        return mx.sigmoid(y)

    experts: Callable[[Any], Any]


@pytest.mark.parametrize(
    ("family", "block", "experts", "expected"),
    [
        ("qwen3_next", "Qwen3NextSparseMoeBlock", "switch_mlp", True),
        ("qwen3_moe", "Qwen3MoeSparseMoeBlock", "switch_mlp", True),
        ("olmoe", "OlmoeSparseMoeBlock", "switch_mlp", True),
        ("deepseek_v3", "DeepseekV3MoE", "switch_mlp", True),
        ("granitemoe", "GraniteMoeMoE", "switch_mlp", True),  # returns the sum at once
        ("qwen3_moe", "Qwen3MoeSparseMoeBlock", "experts", False),
        ("longcat_flash", "LongcatFlashMoE", "switch_mlp", False),  # mx.sum
        ("bailing_moe", "BailingMoeSparseMoeBlock", "switch_mlp", False),  # a compiled function
        ("llama4", "MoE", "experts", False),  # one expert, no sum
    ],
)
def test_the_families_whose_blocks_take_the_sum_alone(family: str, block: str, experts: str, expected: bool) -> None:
    assert combines(getattr(importlib.import_module(f"mlx_lm.models.{family}"), block), experts) == expected


def test_a_block_that_does_something_else_with_the_products_is_left_alone() -> None:
    assert combines(Summed, "experts")
    assert not combines(OneNumber, "experts") and not combines(Kept, "experts") and not combines(object, "experts")
    unreadable: dict[str, Any] = {}
    exec("class Unreadable:\n    def __call__(self): pass", unreadable)
    assert not combines(unreadable["Unreadable"], "experts")


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_products_are_their_weighted_sum(dtype: mx.Dtype) -> None:
    y, scores = mx.random.normal((1, 3, 5)), mx.random.uniform(shape=(1, 3)).astype(dtype)

    def combined(weight: mx.array) -> mx.array:
        assert weight.shape == (3,) and weight.dtype == mx.float32
        return weight @ y[0]

    products = Products(y.shape, y.dtype, combined)
    got = (products * scores[..., None]).sum(axis=-2).astype(products.dtype)
    want = (y * scores[..., None]).sum(axis=-2)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert mx.allclose(got, want, atol=1e-6)


def test_the_weighted_sum_has_the_type_that_mlx_would_give_it() -> None:
    y = mx.ones((1, 3, 5), mx.bfloat16)
    products = Products(y.shape, y.dtype, lambda weight: mx.ones((1, 5), mx.bfloat16))
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        scores = mx.ones((1, 3, 1), dtype)
        assert (products * scores).sum(axis=-2).dtype == (y * scores).sum(axis=-2).dtype


ELSE: list[Callable[[Any, mx.array], Any]] = [
    lambda y, s: y + 0,
    lambda y, s: y[..., 1, :],
    lambda y, s: y.astype(mx.float16),
    lambda y, s: mx.sum(y),
    lambda y, s: s[..., None] * y,
    lambda y, s: (y * s[..., None]).sum(axis=-1),
    lambda y, s: (y * s[..., None]).sum(axis=-2, keepdims=True),
    lambda y, s: np.array(y, dtype=np.float32),
]


@pytest.mark.parametrize("use", ELSE)
def test_nothing_else_can_be_made_of_them(use: Callable[[Any, mx.array], Any]) -> None:
    products = Products((1, 3, 5), mx.float32, lambda weight: mx.ones((1, 5)))
    with pytest.raises((TypeError, AttributeError, ValueError)):
        use(products, mx.ones((1, 3)))


@pytest.fixture(scope="module", params=["qwen3_5_moe, bundled", "qwen3_moe", "olmoe"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("model")
    bundled = request.param.endswith("bundled")
    checkpoint = TINY_MOE if bundled else make_checkpoint(folder / "checkpoint", request.param)
    pack(checkpoint, folder / "packed", load_layout(KERNELS / "layouts" / "whole_expert.yaml"))
    return Engine.load(folder / "packed")


@pytest.fixture(params=["graph", "eager"])
def fused(request: pytest.FixtureRequest, engine: Engine, cache: Path) -> Engine:
    choices = {op: Choice.defaults(parse_variant(KERNELS / op / "cpu" / "plain.cpp")) for op in OPS}
    engine.configure(choices, IoPolicy(schedule=request.param), kernels=KERNELS, cache=cache)
    return engine


class Counted:
    """A kernel that counts its calls."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.calls = kernel, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.kernel(*arguments)


def test_a_streamed_model_decodes_by_the_combining_kernel_alone(fused: Engine) -> None:
    layers = fused.experts
    for block in fused.blocks:
        block.compile(False)  # so that each token calls
    for layer in layers:
        layer.down, layer.down_combined = Counted(layer.down), Counted(layer.down_combined)
    ours = fused.decode(PROMPT, 8)
    assert {layer.down_combined.calls for layer in layers} == {8}  # a token each
    assert {layer.down.calls for layer in layers} != {0}  # the prompt's
    prefill = [layer.down.calls for layer in layers]
    fused.decode(PROMPT[:1], 2)
    assert [layer.down.calls for layer in layers] == prefill
    fused.configure()
    own = fused.decode(PROMPT, 8)
    assert ours.tokens == own.tokens
    assert 0 < np.abs(ours.logits - own.logits).max() < 1e-3 * own.logits.std()


def test_a_layer_gives_the_products_or_their_sum(fused: Engine) -> None:
    layer = fused.experts[0]
    k = layer.combined
    indices, scores = mx.arange(k)[None, None] + 3, mx.softmax(mx.random.normal((1, 1, k)))
    x = mx.random.normal((1, 1, layer.slots.outputs("down_proj")))
    products = layer(x, indices)
    assert isinstance(products, Products)
    total = (products * scores[..., None]).sum(axis=-2)
    layer.combined = 0
    plain = layer(x, indices)
    layer.combined = k
    assert isinstance(plain, mx.array)
    want = (plain * scores[..., None]).sum(axis=-2)
    assert total.shape == want.shape and mx.abs(total - want).max() < 1e-5 * mx.abs(want).max()


def test_several_tokens_another_type_or_fewer_experts_get_the_products_at_once(fused: Engine) -> None:
    layer, k = fused.experts[0], fused.experts[0].combined
    x = mx.random.normal((1, 1, layer.slots.outputs("down_proj")))
    indices = mx.arange(k)[None, None]
    for y in (layer(mx.repeat(x, 2, 1), mx.repeat(indices, 2, 1)), layer(x, indices[..., :2])):
        assert isinstance(y, mx.array)
    assert isinstance(layer(x.astype(mx.float16), indices), mx.array)

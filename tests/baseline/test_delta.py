"""Gated delta-net layers whose one-token steps a kernel takes over, against mlx-lm's own."""

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import kimi_linear, qwen3_5, qwen3_next
from mlx_lm.models.cache import ArraysCache

from baseline.contract import load_contract
from baseline.engine import Engine
from baseline.engine.delta import PART, TOKENS, KernelDelta, is_delta_net
from baseline.engine.kernels import OpKernels
from baseline.golden import compare, load
from baseline.pack import pack
from baseline.questions import answer
from baseline.variant import Choice, list_variants, parse_variant
from tests.kernel_call import KERNELS
from tests.models import make_checkpoint
from tests.streamed import LAYOUT, PROMPT

OP = "gated_delta_step"
FAMILIES = {"qwen3_5": qwen3_5.GatedDeltaNet, "qwen3_next": qwen3_next.Qwen3NextGatedDeltaNet}
VARIANTS = {variant.name: variant for variant in list_variants(KERNELS, OP, "cpu")}
GOLDEN = Path(__file__).parents[2] / "baseline" / "golden" / "tiny-moe"
SIZES = {"keys": 2, "values": 6, "dk": 32, "dv": 20}


def layer(family: str, seed: int = 0, **sizes: int) -> nn.Module:
    """A random layer of mlx-lm's, in float32."""
    sizes = SIZES | sizes
    mx.random.seed(seed)
    config = SimpleNamespace(
        hidden_size=64,
        linear_num_key_heads=sizes["keys"],
        linear_num_value_heads=sizes["values"],
        linear_key_head_dim=sizes["dk"],
        linear_value_head_dim=sizes["dv"],
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-6,
        hidden_act="silu",
    )
    return FAMILIES[family](config).eval()


def outputs(module: nn.Module, steps: list[mx.array], mask: mx.array | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The last step's y and the state after it; the mask is the last step's."""
    cache = ArraysCache(size=2)
    for x in steps[:-1]:
        module(x, None, cache)
    y = module(steps[-1], mask, cache)
    return np.array(y), np.array(cache[1])


def tokens(batch: int, *lengths: int) -> list[mx.array]:
    random = np.random.default_rng(3)
    return [mx.array(random.standard_normal((batch, n, 64)).astype(np.float32)) for n in lengths]


def with_kernel(own: nn.Module, choice: Choice, cache: Path) -> KernelDelta:
    ours = KernelDelta(own)
    instance = ours.instance(mx.float32)
    ours.configure(OpKernels(OP, choice, [instance], KERNELS, cache).find(instance), mx.float32)
    return ours


def doubled(folder: Path) -> Choice:
    """A kernel that writes twice the right y."""
    path = folder / OP / "cpu" / "doubled.cpp"
    path.parent.mkdir(parents=True, exist_ok=True)
    source = VARIANTS["plain"].path.read_text()
    assert source.count("from_float<T>(read)") == 1
    path.write_text(source.replace("from_float<T>(read)", "from_float<T>(2.0f * read)"))
    return Choice.defaults(parse_variant(path, load_contract(KERNELS / OP)))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(
    keys=st.integers(1, 3),
    values_per_key=st.integers(1, 3),
    dk=st.sampled_from([8, 32, 48, 128]),
    dv=st.integers(1, 40),
    batch=st.integers(1, 3),
    prompt=st.integers(1, 4),
)
def test_without_a_kernel_a_layer_is_mlx_lms_own(
    family: str, keys: int, values_per_key: int, dk: int, dv: int, batch: int, prompt: int
) -> None:
    own = layer(family, dv, keys=keys, values=keys * values_per_key, dk=dk, dv=dv)
    steps = tokens(batch, prompt, 1, 1)
    assert all(map(np.array_equal, outputs(KernelDelta(own), steps), outputs(own, steps)))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_takes_over_single_tokens_of_any_batch(family: str, variant: str, batch: int, cache: Path) -> None:
    own, steps = layer(family), tokens(batch, 5, 1, 1, 1)
    ours = with_kernel(own, Choice.defaults(VARIANTS[variant]), cache)
    for got, expected in zip(outputs(ours, steps), outputs(own, steps), strict=True):
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()
    assert ours.recurrence.kernel is not None and ours.recurrence.kernel.seconds > 0


def test_a_token_without_a_state_starts_from_zeros(cache: Path) -> None:
    own, steps = layer("qwen3_5"), tokens(2, 1)
    ours = with_kernel(own, Choice.defaults(VARIANTS["plain"]), cache)
    got, expected = (np.array(module(steps[0])) for module in (ours, own))
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_very_kernel_that_is_configured_runs(cache: Path, tmp_path: Path) -> None:
    own, steps = layer("qwen3_5"), tokens(1, 5, 1)
    got, expected = outputs(with_kernel(own, doubled(tmp_path), cache), steps), outputs(own, steps)
    assert not np.allclose(got[0], expected[0], rtol=0.1) and np.allclose(got[1], expected[1], atol=1e-5)


@pytest.mark.parametrize(
    "steps, mask, dtype",
    [
        ((5, 1), [[True], [False]], mx.float32),  # a mask
        ((5, 1), None, mx.bfloat16),  # another type than the kernel is for
    ],
    ids=["mask", "bfloat16"],
)
def test_what_a_kernel_is_not_for_stays_mlx_lms(
    steps: tuple[int, ...], mask: list[list[bool]] | None, dtype: mx.Dtype, cache: Path, tmp_path: Path
) -> None:
    own = layer("qwen3_5")
    own.set_dtype(dtype)
    ours = with_kernel(own, doubled(tmp_path), cache)
    xs = [x.astype(dtype) for x in tokens(2, *steps)]
    masked = None if mask is None else mx.array(mask)
    states = []
    for module in (own, ours):  # the steps before the last are mlx-lm's in both, or the doubled kernel would show there
        store = ArraysCache(size=2)
        for x in xs[:-1]:
            own(x, None, store)
        y = module(xs[-1], masked, store)
        states.append((np.array(y.astype(mx.float32)), np.array(store[1])))
    assert all(map(np.array_equal, *states))


@pytest.mark.parametrize("masked", [False, True])
def test_a_long_prompt_in_parts_is_mlx_lms_to_the_last_bit(masked: bool) -> None:
    own, (x,) = layer("qwen3_5"), tokens(2, 2 * TOKENS + 5)
    mask = mx.arange(x.shape[1])[None] < mx.array([[x.shape[1]], [TOKENS + 1]]) if masked else None
    got, expected = (np.array(module(x, mask)) for module in (KernelDelta(own), own))
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_a_prompt_that_goes_through_a_layer_in_parts_is_mlx_lms_to_the_last_bit(masked: bool) -> None:
    own, (short, long) = layer("qwen3_5"), tokens(2, 3, 2 * PART + 5)
    mask = mx.arange(long.shape[1])[None] < mx.array([[long.shape[1]], [PART + 1]]) if masked else None
    for got, expected in zip(*(outputs(m, [short, long], mask) for m in (KernelDelta(own), own)), strict=True):
        assert np.array_equal(got, expected)
    for steps in ([long], [long, short]):
        for got, expected in zip(*(outputs(m, steps) for m in (KernelDelta(own), own)), strict=True):
            assert np.array_equal(got, expected)


def test_a_cache_of_unequal_lengths_takes_a_prompt_whole() -> None:
    own, (long,) = layer("qwen3_5"), tokens(2, PART + 5)
    caches = [ArraysCache(size=2), ArraysCache(size=2)]
    for cache in caches:
        cache.lengths = mx.array([PART + 5, 7])
    got, expected = (np.array(module(long, None, c)) for module, c in zip((KernelDelta(own), own), caches, strict=True))
    assert np.array_equal(got, expected) and mx.array_equal(caches[0][0], caches[1][0])


def test_a_kernel_takes_a_long_prompt_token_by_token(cache: Path) -> None:
    own, steps = layer("qwen3_5"), tokens(2, 2 * TOKENS + 5, 1)
    ours = with_kernel(own, Choice.defaults(VARIANTS["fused"]), cache)
    for got, expected in zip(outputs(ours, steps), outputs(own, steps), strict=True):
        assert 0 < np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_only_layers_with_one_decay_a_head_are_delta_nets() -> None:
    assert all(is_delta_net(layer(family)) for family in FAMILIES)
    assert not is_delta_net(nn.Linear(2, 2)) and not is_delta_net(KernelDelta(layer("qwen3_5")))
    kimi = kimi_linear.KimiDeltaAttention.__new__(kimi_linear.KimiDeltaAttention)
    assert not is_delta_net(kimi)


def test_a_layer_with_its_kernel_is_freed_at_once(cache: Path) -> None:
    ours = with_kernel(layer("qwen3_5"), Choice.defaults(VARIANTS["plain"]), cache)
    wrapped = weakref.ref(ours.layer)
    del ours
    assert wrapped() is None


def configure(engine: Engine, choice: Choice, cache: Path) -> None:
    engine.configure({OP: choice}, kernels=KERNELS, cache=cache)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_runs_in_the_engine_and_agrees_with_mlx_lm(
    engine: Engine, want: Any, cache: Path, variant: str
) -> None:
    configure(engine, Choice.defaults(VARIANTS[variant]), cache)
    assert len(engine.deltas) == 6 and all(delta.recurrence.kernel for delta in engine.deltas)
    assert 0 < np.abs(engine.logits(PROMPT) - want[0]).max() < 1e-3 * want[0].std()  # prefill
    decoded, expected = engine.decode(PROMPT, 24), want[1]
    assert engine.usage().kernel_s[OP] > 0
    assert 0 < np.abs(decoded.logits - expected).max() < 1e-3 * expected.std()
    assert decoded.tokens == expected.argmax(-1).tolist()
    engine.configure()
    assert np.array_equal(engine.decode(PROMPT, 24).logits, expected)


def test_a_wrong_kernel_changes_the_logits(engine: Engine, want: Any, cache: Path, tmp_path: Path) -> None:
    configure(engine, doubled(tmp_path), cache)
    assert np.abs(engine.decode(PROMPT, 4).logits - want[1][:4]).max() > 0.05 * want[1].std()
    engine.configure()


def test_the_golden_record_holds_with_the_plain_kernel_and_not_with_a_wrong_one(
    engine: Engine, cache: Path, tmp_path: Path
) -> None:
    golden = load(GOLDEN).quick()
    verdicts = []
    for choice in (Choice.defaults(VARIANTS["plain"]), doubled(tmp_path)):
        configure(engine, choice, cache)
        verdicts.append(compare(golden, answer(engine.model, engine.tokenizer, golden.questions)))
    engine.configure()
    assert verdicts[0].ok and not verdicts[0].identical and not verdicts[1].ok, verdicts


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_errs_as_mlx_lms_own_does(tiny: Path, cache: Path, want: Any, dtype: str) -> None:
    engine = Engine.load(tiny, dtype=dtype)
    own = np.abs(engine.decode(PROMPT, 2).logits - want[1][:2]).mean()
    configure(engine, Choice.defaults(VARIANTS["fused"]), cache)
    assert np.abs(engine.decode(PROMPT, 2).logits - want[1][:2]).mean() < 3 * own
    assert engine.usage().kernel_s[OP] > 0


@pytest.mark.parametrize("family", ["qwen3_moe", "olmoe"])
def test_models_without_delta_nets_are_left_alone(family: str, cache: Path, tmp_path: Path) -> None:
    pack(make_checkpoint(tmp_path / "model", family), tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed")
    own = engine.decode(PROMPT, 4).logits
    configure(engine, doubled(tmp_path), cache)
    # Attention runs on a kernel beside any other, and rounds in its own way.
    assert engine.deltas == [] and np.allclose(engine.decode(PROMPT, 4).logits, own, rtol=0, atol=1e-5)
    assert engine.usage().kernel_s == {OP: 0.0}

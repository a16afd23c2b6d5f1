"""The streamed model with compiled kernels in the place of MLX's own ops."""

from collections.abc import Sequence

import numpy as np
import pytest

from baseline import native
from baseline.contract import load_contract
from baseline.engine import Engine, IoPolicy
from baseline.errors import UsageError
from baseline.pack import pack
from baseline.targets.cpu import missing_features
from baseline.variant import Choice, Variant, list_variants, parse_variant
from tests.kernel_call import KERNELS, PACKED_OPS
from tests.models import GPU, make_checkpoint
from tests.streamed import LAYOUT, PROMPT, defaults


def variants() -> list[Sequence[Variant]]:
    """The n-th variant of every op, for each n; ones that this machine's compiler cannot build are left out."""
    lists = [[v for v in list_variants(KERNELS, op, "cpu") if not missing_features(v)] for op in PACKED_OPS]
    return list(zip(*lists, strict=False))


@pytest.mark.parametrize("chosen", variants(), ids=lambda vs: "-".join(v.name for v in vs))
def test_every_variant_runs_in_the_engine_and_agrees_with_mlx(engine, want, cache, chosen):
    choices = {op: Choice.defaults(variant) for op, variant in zip(PACKED_OPS, chosen, strict=True)}
    engine.configure(choices, kernels=KERNELS, cache=cache)
    before = engine.usage().kernel_s
    logits = engine.logits(PROMPT)
    after = engine.usage().kernel_s
    assert all(after[op] > before[op] for op in PACKED_OPS)
    # Another order of float32 additions: small against the logits' own spread, and never bit-equal throughout.
    assert 0 < np.abs(logits - want[0]).max() < 1e-3 * want[0].std()
    assert engine.decode(PROMPT, 24).tokens == want[1].argmax(-1).tolist()
    engine.configure()
    assert np.array_equal(engine.logits(PROMPT), want[0])


def test_kernels_find_their_experts_where_a_prefetch_put_them(engine, cache):
    choices = defaults("plain")
    engine.configure(choices, kernels=KERNELS, cache=cache)
    want = engine.decode(PROMPT, 24).logits
    before = native.counters()["prefetch_hit_bytes"]
    engine.configure(choices, IoPolicy(prefetch="previous"), kernels=KERNELS, cache=cache)
    assert np.array_equal(engine.decode(PROMPT, 24).logits, want)
    assert native.counters()["prefetch_hit_bytes"] > before
    engine.configure()


@pytest.mark.skipif(GPU, reason="io.cache=mapped is for MLX's CPU build")
@pytest.mark.parametrize("name", ["plain", "vector"])
@pytest.mark.parametrize("schedule, stream", [("graph", "shared"), ("graph", "own"), ("eager", "shared")])
def test_kernels_compute_the_same_from_the_page_cache_itself(engine, cache, name, schedule, stream):
    answers = []
    for io in (IoPolicy(), IoPolicy(cache="mapped", schedule=schedule, stream=stream)):
        engine.configure(defaults(name), io, kernels=KERNELS, cache=cache)
        answers.append((engine.logits(PROMPT), engine.decode(PROMPT, 24).logits))
    engine.configure()
    assert all(map(np.array_equal, *answers))


@pytest.mark.parametrize("bits, group", [(2, 32), (3, 64), (6, 128), (8, 64)])
def test_plain_kernels_at_other_bits(tmp_path, cache, bits, group):
    checkpoint = make_checkpoint(tmp_path / "model", "qwen3_moe", bits, group)
    pack(checkpoint, tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed")
    own = engine.logits(PROMPT)
    choices = defaults("plain")
    engine.configure(choices, kernels=KERNELS, cache=cache)
    assert np.abs(engine.logits(PROMPT) - own).max() < 1e-3 * own.std()


@pytest.mark.parametrize("op", PACKED_OPS)
def test_the_engine_runs_the_very_kernel_that_is_configured(engine, want, cache, tmp_path, op):
    """A kernel that writes twice the right output must change the logits, in every place the op is used."""
    choices = defaults("plain")
    folder = tmp_path / op / "cpu"
    folder.mkdir(parents=True)
    source = (KERNELS / op / "cpu" / "plain.cpp").read_text()
    output = load_contract(KERNELS / op).outputs[0].name
    assert f"{output}[i] = from_float<T>(" in source
    wrong = folder / "doubled.cpp"
    wrong.write_text(source.replace(f"{output}[i] = from_float<T>(", f"{output}[i] = from_float<T>(2.0f * "))
    choices[op] = Choice.defaults(parse_variant(wrong, load_contract(KERNELS / op)))
    engine.configure(choices, kernels=KERNELS, cache=cache)
    assert np.abs(engine.logits(PROMPT) - want[0]).max() > 0.05 * want[0].std()
    ones = np.concatenate([engine.logits([token]) for token in PROMPT[:4]])
    engine.configure()
    own = np.concatenate([engine.logits([token]) for token in PROMPT[:4]])
    assert np.abs(ones - own).max() > 0.05 * own.std()


def test_one_expert_kernel_alone_is_refused(engine, cache):
    choices = {"expert_down": Choice.defaults(parse_variant(KERNELS / "expert_down" / "cpu" / "plain.cpp"))}
    with pytest.raises(UsageError, match="configured together"):
        engine.configure(choices, kernels=KERNELS, cache=cache)
    engine.configure()


def test_every_module_gets_its_kernel(engine, cache):
    choices = defaults("plain")
    engine.configure(choices, kernels=KERNELS, cache=cache)
    assert len(engine.linears) > 50 and all(linear.kernel is not None for linear in engine.linears)
    assert len(engine.experts) == 8
    assert all(layer.gate_up and layer.down and layer.down_combined for layer in engine.experts)
    engine.configure()
    assert not any(linear.kernel for linear in engine.linears)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_kernels_in_half_precision_err_as_mlxs_own_ops_do(tiny, cache, want, dtype):
    engine = Engine.load(tiny, dtype=dtype)
    own = np.abs(engine.logits(PROMPT[:8]) - want[0][:8]).mean()
    choices = defaults("vector")
    engine.configure(choices, kernels=KERNELS, cache=cache)
    assert np.abs(engine.logits(PROMPT[:8]) - want[0][:8]).mean() < 3 * own


def test_a_variant_that_supports_no_layer_of_the_model_is_refused(tmp_path, cache):
    if missing_features(permute := parse_variant(KERNELS / "expert_down" / "cpu" / "permute.cpp")):
        pytest.skip("this machine's compiler has no AVX-512")
    checkpoint = make_checkpoint(tmp_path / "model", "qwen3_moe", 8, 64)
    pack(checkpoint, tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed")
    with pytest.raises(UsageError, match="expert_down/permute supports none of this model's layers"):
        engine.configure({"expert_down": Choice.defaults(permute)}, kernels=KERNELS, cache=cache)

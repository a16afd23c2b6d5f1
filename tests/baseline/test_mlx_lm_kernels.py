"""The custom Metal kernels that mlx-lm ships, through the drop-in, against mlx-lm's own plain-ops versions.

Each module is loaded a second time, as it would be on a machine with an Apple GPU, with the drop-in in the place of
`mx.fast.metal_kernel`; nothing of its source is changed.
"""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from baseline.targets.emulated import metal_kernel

FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module")
def emulated() -> Iterator[Callable[[str], ModuleType]]:
    """Loads a copy of an mlx-lm module whose Metal kernels are emulated."""
    patch = pytest.MonkeyPatch()
    loaded: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        if name not in loaded:
            loaded[name] = _load_copy(name, patch)
        return loaded[name]

    yield load
    for name in loaded:
        sys.modules.pop(_alias(name), None)


def _alias(name: str) -> str:
    package, _, last = name.rpartition(".")
    return f"{package}._emulated_{last}"


def _load_copy(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None
    spec = importlib.util.spec_from_file_location(_alias(name), found.origin)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with patch.context() as here:
        here.setattr(mx.metal, "is_available", lambda: True)
        here.setattr("mlx_lm.utils.can_run_metal", lambda: True)
        here.setattr(mx.fast, "metal_kernel", metal_kernel)
        spec.loader.exec_module(module)
    return module


def normal(*shape: int, seed: int = 0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def close(got: mx.array, want: mx.array, rtol: float, atol: float) -> None:
    mx.eval(got, want)
    np.testing.assert_allclose(
        np.array(got.astype(mx.float32)), np.array(want.astype(mx.float32)), rtol=rtol, atol=atol
    )


# ---- the delta-net ---------------------------------------------------------------------------------


def delta_inputs(t: int, hk: int, hv: int, dk: int, dv: int, vector_gate: bool = False) -> tuple[mx.array, ...]:
    q, k = (normal(2, t, hk, dk, seed=s) * dk**-0.5 for s in (1, 2))
    g = mx.sigmoid(normal(*((2, t, hv, dk) if vector_gate else (2, t, hv)), seed=4))
    beta = mx.sigmoid(normal(2, t, hv, seed=5))
    return q, k, normal(2, t, hv, dv, seed=3), g, beta, normal(2, hv, dv, dk, seed=6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("vector_gate", [False, True])
def test_gated_delta(emulated: Callable[[str], Any], masked: bool, vector_gate: bool) -> None:
    module = emulated("mlx_lm.models.gated_delta")
    inputs = delta_inputs(3, 2, 4, 64, 6, vector_gate)
    mask = mx.array([[True, False, True], [True, True, True]]) if masked else None
    want = module.gated_delta_ops(*inputs, mask=mask)
    for got, expected in zip(module.gated_delta_kernel(*inputs, mask=mask), want, strict=True):
        if masked and got.ndim == 4 and got.shape[1] == 3:  # what a masked token puts out is nobody's business
            got, expected = (mx.where(mask[..., None, None], y, 0) for y in (got, expected))
        close(got, expected, **FLOAT32)


def test_the_packed_delta_kernel_is_its_comparator_to_the_last_bit(emulated: Callable[[str], Any]) -> None:
    """mlx-lm promises this of its packed kernel, on any device."""
    module = emulated("mlx_lm.models.gated_delta")
    inputs = delta_inputs(2, 1, 2, 128, 16)
    packed, tree = module.gated_delta_kernel(*inputs), module.gated_delta_kernel_xtree(*inputs)
    generic = module.gated_delta_kernel_unpacked(*inputs)
    for a, b, c, want in zip(packed, tree, generic, module.gated_delta_ops(*inputs), strict=True):
        mx.eval(a, b, c)
        assert np.array_equal(np.array(a), np.array(b))
        assert np.array_equal(np.array(b), np.array(c))
        close(a, want, **FLOAT32)


# ---- state-space models ----------------------------------------------------------------------------


def test_state_space_step(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.models.ssm")
    heads, groups, width, state = 4, 2, 6, 64
    x, b, c = normal(2, 1, heads, width), normal(2, 1, groups, state, seed=1), normal(2, 1, groups, state, seed=2)
    a_log, d, dt_bias = (normal(heads, seed=s) for s in (3, 4, 5))
    dt, old = normal(2, 1, heads, seed=6), normal(2, heads, width, state, seed=7)
    arguments = (x, a_log, b, c, d, dt, dt_bias)
    want = module.ssm_attn(*arguments, old)
    for got, expected in zip(module.ssm_update_kernel(*arguments, old, (0.001, 100.0)), want, strict=True):
        close(got, expected, rtol=1e-4, atol=1e-4)


def test_rwkv7(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.models.rwkv7")
    r, w, k, v, a, b = (0.3 * normal(2, 3, 2, 32, seed=s) for s in range(6))
    state = normal(2, 2, 32, 32, seed=9)
    y, new_state = module.wkv7_kernel(r, w, k, v, a, b, state)
    ys = []
    for t in range(3):
        step, state = module._wkv7_step_ops(r[:, t], w[:, t], k[:, t], v[:, t], a[:, t], b[:, t], state)
        ys.append(step)
    close(y, mx.stack(ys, axis=1).reshape(y.shape), **FLOAT32)
    close(new_state, state, **FLOAT32)


# ---- quantised and mixed layers --------------------------------------------------------------------


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_bitlinear(emulated: Callable[[str], Any], invert: bool, dtype: mx.Dtype) -> None:
    """mlx-lm has no other version of this one: the packed ternary weights are unpacked here."""
    layer = emulated("mlx_lm.models.bitlinear_layers").BitLinear(160, 12, bias=False, invert_weight_scales=invert)
    packed = np.random.default_rng(0).integers(0, 3, (4, 3, 160)).astype(np.uint8)
    layer.weight = mx.array(packed[0] | packed[1] << 2 | packed[2] << 4 | packed[3] << 6)
    layer.weight_scale = mx.array([1.75], dtype=dtype)
    x = normal(5, 160).astype(dtype)
    weight = packed.reshape(12, 160).astype(np.float64) - 1
    scale = 1 / 1.75 if invert else 1.75
    want = np.array(x.astype(mx.float32)).astype(np.float64) @ weight.T * scale
    rounding = {mx.float32: 1e-5, mx.float16: 2e-3, mx.bfloat16: 1e-2}[dtype]
    close(layer(x), mx.array(want.astype(np.float32)), rtol=rounding, atol=rounding)


def test_attention_residuals(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.models.kimi_k3")
    raw, partial, weight = normal(3, 4, 96), normal(4, 96, seed=1), normal(96, seed=2)
    inv_rms = mx.rsqrt((raw * raw).mean(axis=-1) + 1e-5)
    kernel = module._attn_res_kernel
    (got,) = kernel(
        inputs=[raw, inv_rms, partial, weight, mx.array([1e-5]), 4],
        template=[("InT", mx.float32), ("K", 3), ("D", 96), ("THREADS", module._ATTN_RES_THREADS)],
        grid=(module._ATTN_RES_THREADS, 4, 1),
        threadgroup=(module._ATTN_RES_THREADS, 1, 1),
        output_shapes=[partial.shape],
        output_dtypes=[mx.float32],
    )
    close(got, module._attn_res_combine(raw, inv_rms, partial, weight, 1e-5), **FLOAT32)


def test_sinkhorn(emulated: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = emulated("mlx_lm.models.deepseek_v41")
    comb, eps = mx.exp(normal(5, 3, 4, 4)), mx.array([1e-6])
    want = module._sinkhorn(comb, iters=4, eps=eps)  # on a CPU: the loop in plain ops
    mx.eval(want)
    (got,) = module._sinkhorn_kernel(
        inputs=[comb.reshape(-1, 4, 4), eps],
        template=[("HC", 4), ("ITERS", 4)],
        grid=(15, 1, 1),
        threadgroup=(15, 1, 1),
        output_shapes=[(15, 4, 4)],
        output_dtypes=[mx.float32],
    )
    close(got.reshape(comb.shape), want, **FLOAT32)


# ---- muse's kernels --------------------------------------------------------------------------------


def rms(x: mx.array, eps: float) -> mx.array:
    return x * mx.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def split_heads(qkvg: mx.array, heads: int, kv_heads: int, width: int) -> tuple[mx.array, mx.array]:
    parts = qkvg.reshape(*qkvg.shape[:-1], -1, width)
    return parts[..., :heads, :], parts[..., heads : heads + kv_heads, :]


def test_qk_norm(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.kernels.qk_norm")
    qkvg = normal(2, 3, 2 * (4 + 2) * 40)
    q, k = split_heads(qkvg, 4, 2, 40)
    got = module.qk_norm(qkvg, n_heads=4, n_kv_heads=2, head_dim=40, eps=1e-6, query_scale=0.25)
    close(got[0], rms(q, 1e-6) * 0.25, **FLOAT32)
    close(got[1], rms(k, 1e-6), **FLOAT32)


@pytest.mark.parametrize("offset", [7, "per row"])
def test_qk_norm_rope(emulated: Callable[[str], Any], offset: Any) -> None:
    module = emulated("mlx_lm.kernels.qk_norm_rope")
    qkvg = normal(2, 3, 2 * (4 + 2) * 64)
    offsets = mx.array([7, 30]) if offset == "per row" else offset
    sizes = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 64}
    got = module.qk_norm_rope(qkvg, **sizes, eps=1e-6, query_scale=0.25, rope_base=1e4, offset=offsets)
    for part, scale, result in zip(split_heads(qkvg, 4, 2, 64), (0.25, 1.0), got, strict=True):
        heads_first = (rms(part, 1e-6) * scale).swapaxes(1, 2)
        want = mx.fast.rope(heads_first, 64, traditional=True, base=1e4, scale=1.0, offset=offsets)
        close(result, want.swapaxes(1, 2), rtol=1e-4, atol=1e-5)


def test_expert_routing(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.kernels.expert_routing")
    logits, bias = normal(5, 70), 0.1 * normal(70, seed=1)
    inds, weights = module.expert_routing(logits, bias, top_k=6, multiplier=1.5, score_eps=1e-6, route_scale=2.0)
    scores = mx.sigmoid(logits * 1.5)
    order = mx.argsort(-(scores + bias), axis=-1)[:, :6]
    chosen = mx.take_along_axis(scores, order, axis=-1)
    mx.eval(inds, order)
    assert np.array_equal(np.array(inds), np.array(order))
    close(weights, chosen / (chosen.sum(axis=-1, keepdims=True) + 1e-6) * 2.0, **FLOAT32)


def test_post_expert_norm_combine(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.kernels.post_expert_norm_combine")
    experts, weights, scale = normal(3, 4, 600), mx.sigmoid(normal(3, 4, seed=1)), normal(600, seed=2)
    got = module.post_expert_norm_combine(experts, weights, norm_weight=scale, eps=1e-6)
    want = (rms(experts * scale, 1e-6) * weights[..., None]).sum(axis=-2)
    close(got, want, **FLOAT32)


def test_rms_norm_sigmoid_gate_takes_strided_views(emulated: Callable[[str], Any]) -> None:
    module = emulated("mlx_lm.kernels.rms_norm_sigmoid_gate")
    x = normal(2, 5, 3, 40).swapaxes(1, 2)  # (B, H, L, D), not contiguous
    gate = normal(2, 5, 3 * 40, seed=1)
    want = (rms(x, 1e-6).swapaxes(1, 2)).reshape(2, 5, -1) * mx.sigmoid(gate)
    close(module.rms_norm_sigmoid_gate(x, gate, eps=1e-6), want, **FLOAT32)


@pytest.mark.parametrize("scaled", [False, True])
def test_norm_add_norm(emulated: Callable[[str], Any], scaled: bool) -> None:
    module = emulated("mlx_lm.kernels.norm_add_norm")
    width = 600
    branch, stream = normal(3, width), normal(3, width, seed=1)
    alpha, beta = normal(width, seed=2), normal(width, seed=3)
    post = normal(width, seed=4) if scaled else None
    norm = nn.RMSNorm(width, eps=1e-6)
    norm.weight = normal(width, seed=5)
    gates = {"alpha": alpha, "beta": beta, "post_weight": post, "post_eps": 1e-5}
    new_stream, normed = module.norm_add_norm(branch, stream, **gates, next_norm=norm)
    scaled_branch = branch * post if scaled else branch
    want = alpha * stream + beta * rms(scaled_branch, 1e-5)
    close(new_stream, want, **FLOAT32)
    close(normed, norm(want), **FLOAT32)
    close(module.norm_add_norm(branch, stream, **gates, next_norm=None)[0], want, **FLOAT32)
    close(module.pre_norm(want, norm, dtype=mx.float32), norm(want), **FLOAT32)


# ---- distillation losses: what the sanitizer says of shipped kernels -----------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["kl_div_loss", "js_div_loss"])
def test_losses_agree_although_they_race(
    emulated: Callable[[str], Any], name: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlx-lm 0.32.2 reads the maxima in `shared` and writes the sums over them with no barrier between the two.

    In step, as a GPU is likely to run it, it comes out right all the same.
    """
    module = emulated("mlx_lm.tuner.losses")
    q, p = normal(2, 4100), normal(2, 4100, seed=1)

    def loss() -> mx.array:
        function = getattr(module, name)
        return mx.grad(lambda x: function(x, p).sum())(q) if backward else function(q, p)

    def run_unsanitised(*kernels: str) -> None:
        for kernel in kernels:
            monkeypatch.setattr(module, kernel, dataclasses.replace(getattr(module, kernel), sanitize=False))

    monkeypatch.setattr(module, "can_run_metal", lambda: True)
    prefix = name.partition("_")[0]
    if backward:
        run_unsanitised(f"_{prefix}_forward_kernel")
    with pytest.raises(RuntimeError, match=r"race: byte \d+ of `shared` is (read|written) by"):
        mx.eval(loss())
    run_unsanitised(f"_{prefix}_forward_kernel", f"_{prefix}_backward_kernel")
    got = loss()
    monkeypatch.setattr(module, "can_run_metal", lambda: False)
    close(got, loss(), rtol=1e-4, atol=1e-5)

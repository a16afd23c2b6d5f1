"""The delta-net's convolution and its silu on a kernel: against float64 and against MLX's own."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import kimi_linear, qwen3_5, qwen3_next

from baseline.engine.conv import Activated, KernelConv, activates


def depthwise(channels: int, taps: int, **options: int | bool) -> nn.Conv1d:
    mx.random.seed(channels)
    return nn.Conv1d(channels, channels, taps, **{"groups": channels, "bias": False, **options})


@settings(max_examples=40)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 9),
    channels=st.integers(1, 40).map(lambda n: 16 * n),
    taps=st.integers(1, 5),
    loud=st.sampled_from([0.01, 1.0, 100.0, 1e4]),
)
def test_it_is_as_near_to_float64_as_mlx(
    cache: Path, batch: int, tokens: int, channels: int, taps: int, loud: float
) -> None:
    conv = KernelConv(depthwise(channels, taps))
    x = mx.array(np.random.default_rng(tokens).standard_normal((batch, tokens + taps - 1, channels)) * loud, mx.float32)
    own = np.array(nn.silu(conv(x)))
    conv.configure(cache)
    got = np.array(Activated.silu(conv(x)))
    weight = np.array(conv.conv.weight).astype(np.float64)[..., 0].T
    sums = sum(np.array(x).astype(np.float64)[:, tap : tap + tokens] * weight[tap] for tap in range(taps))
    with np.errstate(over="ignore"):
        wanted = sums / (1 + np.exp(-sums))
    assert got.shape == own.shape
    assert np.abs(got - wanted).max() <= 3 * np.abs(own - wanted).max() + 4e-7 * np.abs(wanted).max()


def test_not_a_number_stays_one(cache: Path) -> None:
    conv = KernelConv(depthwise(32, 2))
    conv.configure(cache)
    x = mx.zeros((1, 4, 32))
    x[0, 2, 5] = mx.nan
    found = np.isnan(np.array(Activated.silu(conv(x))))
    assert found[0, 1:, 5].all() and found.sum() == 2


@pytest.mark.parametrize(
    "options", [{"groups": 1}, {"groups": 16}, {"bias": True}, {"padding": 1}, {"stride": 2}, {"dilation": 2}]
)
def test_another_convolution_stays_with_mlx(cache: Path, options: dict[str, int | bool]) -> None:
    conv = depthwise(32, 3, **options)
    ours, x = KernelConv(conv), mx.random.normal((1, 9, 32))
    ours.configure(cache)
    assert ours.kernel is None and mx.array_equal(ours(x), conv(x))


def test_without_a_kernel_and_in_half_precision_it_is_mlxs_own(cache: Path) -> None:
    conv, x = depthwise(32, 4), mx.random.normal((1, 6, 32))
    ours = KernelConv(conv)
    assert mx.array_equal(ours(x), conv(x))
    ours.configure(cache)
    half = x.astype(mx.bfloat16)
    assert mx.array_equal(Activated.silu(ours(half)), nn.silu(conv(half)))
    ours.configure(None)
    assert mx.array_equal(ours(x), conv(x))


def test_only_code_that_takes_its_silu_alone_is_given_it() -> None:
    class Twice(nn.Module):
        def __call__(self, x: mx.array) -> mx.array:
            y = self.conv1d(x)
            return nn.silu(y) + y

    assert activates(qwen3_5.GatedDeltaNet, "conv1d") and activates(qwen3_next.Qwen3NextGatedDeltaNet, "conv1d")
    assert not activates(Twice, "conv1d") and not activates(kimi_linear.KimiDeltaAttention, "conv1d")
    assert Activated().RMSNorm is nn.RMSNorm

"""mlx-lm's own Metal kernels on a CUDA device, through the msl/cuda_*.h headers: checks, and the delta rule timed."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import mlx.core as mx

from baseline.mlx_ops import Run
from baseline.targets import cuda
from experiments.cuda_bench import first_error, say

TOLERANCE = 1e-5


def check() -> dict[str, str]:
    """By mlx-lm/file/kernel: `ok`, or what is wrong in comparison with plain operations."""
    found = {}
    for name, compare in _CHECKS.items():
        try:
            error = compare()
            found[f"mlx-lm/{name}"] = "ok" if error <= TOLERANCE else f"error {error:.2e} exceeds {TOLERANCE:.0e}"
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            found[f"mlx-lm/{name}"] = first_error(str(error))
        say(f"  mlx-lm/{name}: {found[f'mlx-lm/{name}']}")
    return found


def delta_runs() -> dict[str, Run]:
    """mlx-lm's kernels of the delta rule on the inputs of gated_delta_step; none where mlx-lm is not installed."""
    try:
        module = _load("gated_delta")
    except ImportError:
        return {}

    def step(packed: bool) -> Run:
        def run(inputs: Sequence[mx.array]) -> list[mx.array]:
            *vectors, state = inputs
            return list(module._gated_delta_kernel_impl(*(v[:, None] for v in vectors), state, allow_packed=packed))

        return run

    return {"mlx-lm metal kernel": step(False), "mlx-lm metal kernel, packed": step(True)}


def _load(name: str) -> ModuleType:
    """One module of mlx_lm.models, by its file: importing the package needs all that mlx-lm needs."""
    package = importlib.util.find_spec("mlx_lm")
    if package is None or not package.submodule_search_locations:
        raise ImportError("mlx-lm is not installed")
    path = Path(package.submodule_search_locations[0]) / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with (
        mock.patch.object(mx.metal, "is_available", lambda: True),
        mock.patch.object(mx.fast, "metal_kernel", cuda.metal_kernel),
    ):
        spec.loader.exec_module(module)
    return module


def _difference(found: Sequence[mx.array], wanted: Sequence[mx.array]) -> float:
    """The largest difference over the largest value, of the output where that is worst."""
    worst: float = 0.0
    for a, b in zip(found, wanted, strict=True):
        largest: Any = (mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max() / mx.abs(b).max()).item()
        worst = max(worst, float(largest))
    return worst


def _delta(packed: bool = False, vector: bool = False, masked: bool = False) -> float:
    module = _load("gated_delta")
    q, k = (mx.random.normal((2, 5, 2, 128)) / 11 for _ in range(2))
    v, beta = mx.random.normal((2, 5, 4, 128)), mx.random.uniform(shape=(2, 5, 4))
    g = mx.random.uniform(0.5, 1, (2, 5, 4, 128) if vector else (2, 5, 4))
    mask: Any = mx.arange(5)[None] < mx.array([[5], [3]]) if masked else None
    state = mx.random.normal((2, 4, 128, 128))
    found = module._gated_delta_kernel_impl(q, k, v, g, beta, state, mask, allow_packed=packed)
    wanted = module.gated_delta_ops(q, k, v, g, beta, state, mask)
    if masked:  # past the mask the kernel writes zeros
        found, wanted = ((mx.where(mask[..., None, None], y, 0), state) for y, state in (found, wanted))
    return _difference(found, wanted)


def _ssm() -> float:
    """Two groups of four heads; without matrix products, which a GPU may round to TF32."""
    module = _load("ssm")
    x, state = mx.random.normal((2, 1, 8, 16)), mx.random.normal((2, 8, 16, 64))
    b, c = mx.random.normal((2, 1, 2, 64)), mx.random.normal((2, 1, 2, 64))
    a_log, d, bias = mx.random.uniform(shape=(8,)), mx.random.normal((8,)), mx.random.normal((8,))
    dt, limits = mx.random.normal((2, 1, 8)), (0.001, 100.0)
    found = module.ssm_update_kernel(x, a_log, b, c, d, dt, bias, state, limits)
    step = module.compute_dt(dt, bias, limits)[:, 0, :, None]
    b, c = (mx.repeat(group[:, 0], 4, 1)[:, :, None] for group in (b, c))
    after = mx.exp(-mx.exp(a_log)[:, None] * step)[..., None] * state + (step * x[:, 0])[..., None] * b
    return _difference(found, [((after * c).sum(-1) + d[:, None] * x[:, 0])[:, None], after])


def _bitlinear() -> float:
    module = _load("bitlinear_layers")
    layer = module.BitLinear(256, 64, bias=False)
    layer.weight = mx.random.randint(0, 3, (4, 16, 256)).astype(mx.uint8)
    fields = layer.weight
    layer.weight = fields[0] | fields[1] << 2 | fields[2] << 4 | fields[3] << 6
    x = mx.random.normal((3, 256))
    weights = fields.reshape(64, 256).astype(mx.float32) - 1
    return _difference([layer(x)], [(x[:, None] * weights).sum(-1)])


_CHECKS: Mapping[str, Callable[[], float]] = {
    "gated_delta/generic": _delta,
    "gated_delta/packed": lambda: _delta(packed=True),
    "gated_delta/vector": lambda: _delta(vector=True),
    "gated_delta/masked": lambda: _delta(masked=True),
    "ssm": _ssm,
    "bitlinear_layers": _bitlinear,
}

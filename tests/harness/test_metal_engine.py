"""The whole engine with Metal kernels: emulated everywhere, and on the GPU where there is one."""

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from baseline.contract import load_contract
from baseline.engine import Engine
from baseline.variant import Choice, list_variants, parse_variant
from harness.build import build
from harness.candidate import Status
from harness.ledger import load_rows
from harness.loop import search
from harness.settings import OPS, SearchSettings
from harness.targets import Emulated, Metal
from harness.verify import measure_noise, verify
from tests.harness.conftest import KERNELS
from tests.harness.metal_variants import RIGHT, SLOW, write_contract, write_variant

GPU = [pytest.mark.metal, pytest.mark.skipif(not mx.metal.is_available(), reason="this machine has no Apple GPU")]
PROMPT = [5, 6, 7]


@pytest.fixture
def gpu():
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


def plain_metal() -> dict[str, Choice]:
    return {op: Choice.defaults(parse_variant(KERNELS / op / "metal" / "plain.metal")) for op in OPS}


def logits_with_and_without(packed: Path, cache: Path) -> list[np.ndarray]:
    """Of three tokens after PROMPT, by Metal kernels for every op and by MLX's own ops, which are its record."""
    engine = Engine.load(packed)
    own = engine.decode(PROMPT, 3)
    engine.configure(plain_metal(), kernels=KERNELS, cache=cache)
    assert all(kernels.table for kernels in engine.kernels.values())
    ours = engine.decode(PROMPT, 3)
    assert ours.tokens == own.tokens
    return [ours.logits, own.logits]


def test_emulated_kernels_decode_as_mlx_does(packed, cache):
    ours, own = logits_with_and_without(packed, cache)
    assert not np.array_equal(ours, own)  # or the kernels did not run
    assert np.abs(ours - own).max() < 1e-5 * np.abs(own).max()


class TestOnAppleHardware:
    """What has never run but on macOS."""

    pytestmark = GPU

    def test_the_engine_decodes_as_mlx_does(self, gpu, packed, cache):
        ours, own = logits_with_and_without(packed, cache)
        assert np.abs(ours - own).max() < 1e-4 * np.abs(own).max()

    @pytest.mark.parametrize("op", OPS)
    def test_every_variant_is_right_on_the_gpu_and_the_emulator(self, op, cache, tmp_path):
        contract = load_contract(KERNELS / op)
        for backend in (Emulated(), Metal()):
            built = {
                variant.name: build(Choice.defaults(variant), contract, backend, cache)[1]
                for variant in list_variants(KERNELS, op, "metal")
            }
            noise = measure_noise(built["plain"], 1, tmp_path, 120)
            assert noise.right, noise.failure
            for name, library in built.items():
                checked = verify(library, noise.errors, 100, tmp_path, 120)
                assert checked.right, (backend.name, name, checked.failure)

    def test_a_search_keeps_the_faster_kernel(self, kernels, cache, packed, golden, tmp_path):
        write_contract(kernels)
        write_variant(kernels, "plain", SLOW.replace("again < 4", "again < 4000"))
        write_variant(kernels, "fast", RIGHT)
        write_variant(kernels, "broken", "y[0] = no_such_name;")
        settings = SearchSettings(tmp_path / "run", packed, kernels, cache, golden, "metal", ops=("qmatvec",))
        summary = search(dataclasses.replace(settings, candidates=2))
        outcomes = {row.variant: row.status for row in load_rows(tmp_path / "run" / "ledger.tsv")[1:]}
        assert outcomes == {"broken": Status.FAILED_BUILD, "fast": Status.KEPT}
        assert summary.confirmed is not None and summary.unmeasured == 0

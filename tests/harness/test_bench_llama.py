"""llama.cpp in the bench: the models made for it, the pages of its experts, and the rows, with it and without."""

import json
import math
import mmap
import sys
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from baseline.shapes import build, make_shape
from harness.bench import engine, rivals
from harness.bench.llama_models import BLOCK, Fill, Model, Touched, dense, mixture
from harness.bench.pages import PAGE, Pages, bytes_read, forget, joined
from harness.bench.rivals import Rival
from harness.cache_state import warm
from tests.models import TINY_MOE

QUARTER = {"warm": [20.0, 40.0], "mapped": [30.0, 30.0], "cold": [10.0, 10.0]}
LLAMA = {engine.LLAMA_WARM: [25.0, 40.0], engine.LLAMA_MISSING: [2.0, 2.5]}


# ---- the models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slice_model(tmp_path_factory) -> Model:
    """llama.cpp's model of the bench's slice of the 397B, from the config.json that synth writes."""
    folder = tmp_path_factory.mktemp("config")
    shape = make_shape("qwen3.5-397b-a17b", 4, 64, 32768)
    _, config = build(shape, {})
    (folder / "config.json").write_text(json.dumps(config))
    return mixture(folder, engine.TOP_K)


def test_the_slice_has_as_many_weights_as_mlx_lm_s_model_of_it(slice_model):
    module, config = build(make_shape("qwen3.5-397b-a17b", 4, 64, 32768), {})
    wanted = 0
    for name, array in tree_flatten(module.parameters()):
        layer, _, kind = name.rpartition(".")
        packed = array.dtype == mx.uint32
        bits = config["quantization"].get(layer, config["quantization"])["bits"]
        wanted += 0 if kind in ("scales", "biases") else array.size * (32 // bits if packed else 1)
    assert sum(math.prod(tensor.shape) for tensor in slice_model.tensors) == wanted


def test_a_token_touches_four_experts_of_each_layer_and_one_row_of_the_embedding(slice_model):
    expert = 3 * 4096 * 1024 * 4.5 / 8
    assert slice_model.touched_experts == 4 * 4 * expert
    embedding = next(tensor for tensor in slice_model.tensors if tensor.name == "token_embd.weight")
    assert slice_model.touched == slice_model.nbytes - embedding.nbytes - 4 * 60 * expert


def test_every_fourth_layer_has_full_attention(slice_model):
    full = [tensor.name for tensor in slice_model.tensors if tensor.name.endswith("attn_q.weight")]
    assert full == ["blk.3.attn_q.weight"]
    assert slice_model.hyperparameters["full_attention_interval"] == 4


def test_all_but_vectors_routers_and_convolutions_have_four_bits(slice_model):
    kept = [t.name.split(".", 2)[-1] for t in slice_model.tensors if t.fill is not Fill.QUANTISED and len(t.shape) > 1]
    assert set(kept) == {"ffn_gate_inp.weight", "ssm_conv1d.weight"}


@pytest.mark.parametrize(
    ("changed", "text"),
    [({"model_type": "olmoe"}, "not of olmoe"), ({"hidden_size": 4095}, f"no multiple of {BLOCK} long")],
)
def test_a_model_that_llama_cpp_has_no_like_of_is_refused(tmp_path, changed, text):
    config = json.loads((TINY_MOE / "config.json").read_text())
    config |= {"model_type": changed.pop("model_type", config["model_type"])}
    config["text_config"] |= changed
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=text):
        mixture(tmp_path, None)


# ---- pages -----------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="mapped pages can be dropped on Linux alone")


def test_ranges_that_touch_are_one():
    assert joined([(8, 9), (0, 4), (4, 6), (1, 2)]) == [(0, 6), (8, 9)]


@pytest.fixture
def mapped(tmp_path):
    """A file of 1024 pages, mapped, and its mapping."""
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes(1024 * PAGE))
    forget(path)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as content:
        yield path, content


@linux
def test_pages_go_and_the_others_stay(mapped):
    path, content = mapped
    pages, rest = Pages(path, [(256 * PAGE, 768 * PAGE)]), Pages(path, [(0, 128 * PAGE)])
    warm([path])
    path.unlink()
    assert (pages.cached(), rest.cached()) == (512, 128)
    try:
        pages.drop()
    except RuntimeError as error:  # the folder of the tests is in memory
        pytest.skip(str(error))
    assert pages.cached() <= 0.01 * 512 and rest.cached() == 128
    before = bytes_read()
    assert content[300 * PAGE] + content[500 * PAGE] >= 0
    assert bytes_read() > before


@linux
def test_pages_that_stay_are_an_error(mapped, monkeypatch):
    pages = Pages(mapped[0], [(0, 1024 * PAGE)])
    warm([mapped[0]])
    monkeypatch.setattr("os.posix_fadvise", lambda *_: None)
    with pytest.raises(RuntimeError, match="1024 of 1024 pages cannot be dropped"):
        pages.drop()


@linux
def test_a_file_that_is_not_mapped_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(bytes(PAGE))
    with pytest.raises(RuntimeError, match="is not mapped"):
        Pages(tmp_path / "file", [(0, PAGE)])


# ---- rows ------------------------------------------------------------------------------------------


def test_warm_and_cold_are_compared_with_llama_cpp_warm_and_all_missing():
    samples = QUARTER | LLAMA | {engine.MLX: [1.0, 1.0]}
    rows = list(engine.rows_of_decode(samples, {arm: "" for arm in engine.ROWS}))
    assert [(row.name, row.contender) for row in rows] == list(engine.ROWS.values())
    warm, mapped, _, cold, *_ = rows
    assert warm.ratios["llama.cpp"].median == pytest.approx((0.8 + 1.0) / 2)
    assert [warm.reached(target) for target in warm.targets] == [True, False] and warm.met is False
    assert mapped.ratios["llama.cpp"].median == pytest.approx((1.2 + 0.75) / 2) and mapped.met is False
    assert cold.ratios["llama.cpp"].median == pytest.approx((5 + 4) / 2) and cold.met


def test_without_llama_cpp_one_row_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(rivals, "LLAMA_PACKAGES", ("no_such_package",))
    with ExitStack() as stack:
        rival = rivals.start_llama(stack, "harness.bench.llama_slice", "Slice")
    rows = decode_rows(rival)
    (row,) = (row for row in rows if row.contender == "llama.cpp")
    assert row.figure is None and "not installed: no_such_package" in row.note
    assert all("llama.cpp" not in row.ratios for row in rows)
    assert {target.against: rows[0].reached(target) for target in rows[0].targets} == {
        "mlx-lm": None,
        "llama.cpp": None,
    }


def test_pages_that_cannot_be_dropped_are_a_row_that_says_so():
    answers = {"obstacle": "9 of 9 pages", "warm": 20.0, "touched": Touched("qwen35moe", 3, 2, 0)}
    rows = decode_rows(Rival(actor(answers)))
    warm, missing = (row for row in rows if row.contender == "llama.cpp")
    assert warm.figure and missing.figure is None and missing.note == "9 of 9 pages"
    cold = next(row for row in rows if row.name == "decode cold")
    assert cold.met is None


def test_what_a_miss_reads_is_noted():
    touched = Touched("qwen35moe", 306_000_000, 113_000_000, 708e6)
    rows = decode_rows(Rival(actor({"obstacle": "", "warm": 20.0, "missing": 2.0, "touched": touched})))
    missing = next(row for row in rows if row.name == "decode, every expert missing")
    assert "reads 708 MB for 113 MB of experts" in missing.note
    assert next(row for row in rows if row.name == "decode cold").met


def actor(answers: dict[str, Any]) -> Any:
    """A process that answers so."""
    return SimpleNamespace(call=lambda method, *_: answers[method])


def decode_rows(llama: Rival) -> list[Any]:
    """Rows of an engine that decodes 10 tokens/s, with no mlx-lm beside it."""
    bench: Any = SimpleNamespace(io={}, dtype="float32", kernels_named=str)
    return list(
        engine.decode_rows(bench, actor({"decode": 10.0}), actor({"decode": 10.0}), Rival(None, "no memory"), llama, 2)
    )


# ---- where it is installed -------------------------------------------------------------------------


def test_llama_cpp_decodes_the_bundled_model_s_like_warm_and_missing(tmp_path):
    for package in rivals.LLAMA_PACKAGES:
        pytest.importorskip(package, reason=f"{package} is not installed")
    from harness.bench.llama_slice import Slice

    model = Slice(TINY_MOE, 4, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    assert model.warm(2) > 0
    if not model.obstacle():
        assert model.missing(2) > 0
        assert model.touched().disk > model.touched().experts


def test_what_is_written_is_read_back(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    pytest.importorskip("llama_cpp", reason="llama_cpp is not installed")
    from harness.bench.llama import values, write

    model = mixture(TINY_MOE, 4)
    write(tmp_path / "model.gguf", model)
    found = gguf.GGUFReader(tmp_path / "model.gguf").tensors
    assert [(t.name, tuple(reversed(t.shape.tolist())), t.n_bytes) for t in found] == [
        (tensor.name, tensor.shape, tensor.nbytes) for tensor in model.tensors
    ]
    for seed, (tensor, read) in enumerate(zip(model.tensors, found, strict=True)):
        assert bytes(read.data.tobytes()) == values(tensor, seed).tobytes()


def test_the_dense_model_touches_what_it_did():
    assert dense().touched == 660_815_872

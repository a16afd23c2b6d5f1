"""Random checkpoints: the real models' shapes, numbers that stay normal, and a folder that is whole or no model."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters, load_model

from baseline import synth
from baseline.checkpoint import read_checkpoint, read_header
from baseline.engine import Engine, load_resident
from baseline.engine.generate import generate
from baseline.errors import UsageError
from baseline.layout import load_layout
from baseline.pack import pack
from baseline.random_weights import K, overlap, popularity
from baseline.shapes import MODELS, Model, Shape, build, make_shape
from baseline.synth import MARK, tokenizer_ids
from tests.models import TINY_MOE

ROOT = Path(__file__).parents[2]
LAYOUT = load_layout(ROOT / "kernels" / "layouts" / "whole_expert.yaml")
VOCAB = tokenizer_ids(TINY_MOE)
SMALL = Shape("small", 4, 16, VOCAB)  # of a family of its own, for what no real dimensions are needed


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "small", Model(128, 8, 2, 16, 32, 4, 64))


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 40 tensors each, as a checkpoint of many GB has several."""

    def shards(arrays: dict[str, Any]) -> list[dict[str, Any]]:
        names = list(arrays)
        return [{n: arrays[n] for n in names[i : i + 40]} for i in range(0, len(names), 40)]

    monkeypatch.setattr(synth, "make_shards", shards)


def write(folder: Path, shape: Shape = SMALL, seed: int = 0, progress: Any = None) -> int:
    return synth.synth(shape, folder, TINY_MOE, seed, progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def described(checkpoint: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in read_checkpoint(checkpoint).items()}


# The model cards' figures, and what Flash-MoE read of the 397B: experts of 6.75 MiB, 223 GB in all.
@pytest.mark.parametrize(
    ("name", "parameters", "expert_bytes"),
    [
        ("qwen3.5-397b-a17b", 397e9, 7_077_888),
        ("qwen3.5-122b-a10b", 122e9, 5_308_416),
        ("qwen3.5-35b-a3b", 35e9, 1_769_472),
    ],
)
def test_whole_models_have_the_size_of_the_real_ones(name: str, parameters: float, expert_bytes: int) -> None:
    model, _ = build(make_shape(name), {})
    assert get_total_parameters(model) == pytest.approx(parameters, rel=0.01)
    for layer in model.language_model.layers:
        nbytes = sum(array.nbytes for _, array in tree_flatten(layer.mlp.switch_mlp.parameters()))
        assert nbytes == expert_bytes * MODELS[name].experts
    if name == "qwen3.5-397b-a17b":
        assert sum(array.nbytes for _, array in tree_flatten(model.parameters())) == pytest.approx(223e9, rel=0.001)


@pytest.fixture(scope="module")
def slice_35b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "slice"
    write(folder, make_shape("qwen3.5-35b-a3b", 4, 64, VOCAB))
    return folder


def test_tensors_are_those_of_mlx_lms_model_quantised_by_its_own_predicate(slice_35b: Path) -> None:
    """Loaded strictly, so that no name is missing or unknown; with every quantised module as mlx-lm would make it."""
    model, config = load_model(slice_35b, lazy=True, strict=True)
    found = {name: (str(a.dtype)[9:], tuple(a.shape)) for name, a in tree_flatten(model.parameters())}
    assert described(slice_35b) == found
    want = model.quant_predicate if hasattr(model, "quant_predicate") else model.language_model.quant_predicate
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            raise AssertionError(f"{path} is not quantised")
        if hasattr(module, "bits"):
            params = want(path, module)
            wanted = (4, 64) if params is True else (params["bits"], params["group_size"])
            assert (module.bits, module.group_size) == wanted, path
            assert config["quantization"].get(path, True) == params
    floats = {name for name, (dtype, _) in found.items() if dtype == "float32"}
    assert floats == {f"language_model.model.layers.{i}.linear_attn.A_log" for i in (0, 1, 2)}


def test_names_and_config_are_those_of_a_conversion_that_mlx_lm_made(slice_35b: Path) -> None:
    """The bundled model is one: eight layers of the same kinds."""

    def first_layers(names: Any) -> set[str]:
        return {n for n in names if not (m := re.search(r"layers\.(\d+)", n)) or int(m[1]) < 4}

    assert set(described(slice_35b)) == first_layers(described(TINY_MOE))
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (slice_35b, TINY_MOE))
    for name in ("quantization", "quantization_config"):
        assert ours[name] == {n: theirs[name][n] for n in first_layers(theirs[name])}
    assert ours["text_config"]["layer_types"] == theirs["text_config"]["layer_types"][:4]
    assert ours["eos_token_id"] == theirs["eos_token_id"]
    assert ours.keys() >= theirs.keys() - {"dtype"}


class Recorder(nn.Module):
    """A SwitchGLU that notes the experts chosen, [tokens, k], and the size of what goes in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array:
        self.chosen = np.array(indices).reshape(-1, indices.shape[-1])
        return self.inner(x, indices)


def shared_with_the_token_before(chosen: np.ndarray) -> float:
    return float(np.mean([len({*a} & {*b}) / chosen.shape[1] for a, b in itertools.pairwise(chosen)]))


def test_a_quarter_of_a_tokens_experts_were_those_of_the_token_before(slice_35b: Path) -> None:
    """Uniform routing would share K / E, a sixteenth. And the residual stream stays normal."""
    model, _ = load_resident(slice_35b, top_k=K)
    layers = model.language_model.layers
    for layer in layers:
        layer.mlp.switch_mlp = Recorder(layer.mlp.switch_mlp)
    tokens = np.random.default_rng(3).integers(0, VOCAB, 40)
    hidden = model.language_model.model(mx.array(tokens[None]))
    assert 0.5 < float(hidden.std()) < 2 and float(mx.abs(hidden).max()) < 10
    shared = [shared_with_the_token_before(layer.mlp.switch_mlp.chosen) for layer in layers]
    assert 0.18 < np.mean(shared) < 0.32, shared
    used = {expert for layer in layers for expert in layer.mlp.switch_mlp.chosen.reshape(-1)}
    assert len(used) > 60  # no expert is dead


def test_popularities_share_a_quarter_and_a_twelfth_serves_half() -> None:
    """Simulated: independent tokens, 512 experts."""
    noise = np.random.default_rng(0).standard_normal((4000, 512))
    chosen = np.argsort(popularity(512) + noise, axis=1)[:, -K:]
    assert 0.24 < shared_with_the_token_before(chosen) < 0.27
    uses = np.sort(np.bincount(chosen.reshape(-1), minlength=512))[::-1]
    assert 0.4 < uses[:41].sum() / uses.sum() < 0.55


@pytest.mark.parametrize("experts", [8, 16, 17, 64, 100, 256, 512])
def test_any_number_of_experts_has_popularities(experts: int) -> None:
    logits = popularity(experts)
    assert logits.shape == (experts,) and np.isfinite(logits).all() and (np.diff(logits) > 0).all()
    assert overlap(logits) == pytest.approx(0.25, abs=1e-4) or experts <= 17


def test_streamed_logits_are_the_resident_models_and_text_comes_out(tmp_path: Path) -> None:
    write(tmp_path / "model", make_shape("qwen3.5-35b-a3b", 4, 8, VOCAB))
    pack(tmp_path / "model", tmp_path / "packed", LAYOUT)
    model, _ = load_resident(tmp_path / "model")
    engine = Engine.load(tmp_path / "packed")
    tokens = [17, 4321, 99]
    want = np.array(model(mx.array([tokens]))[0])
    assert np.array_equal(engine.logits(tokens), want)
    assert np.isfinite(want).all() and 0.3 < want.std() < 3
    assert len(generate(engine, engine.tokenizer.encode("hello"), 2).tokens) == 2


def test_bfloat16_is_as_normal_as_float32(tmp_path: Path) -> None:
    write(tmp_path / "model")
    tokens = mx.array([list(range(0, VOCAB, 300))])
    exact, coarse = (load_resident(tmp_path / "model", dtype)[0](tokens) for dtype in ("float32", None))
    assert coarse.dtype == mx.bfloat16
    assert float(mx.abs(exact - coarse.astype(mx.float32)).mean()) < 0.2 * float(exact.std())


@pytest.mark.parametrize(
    ("module", "deviation"),
    [
        ("layers.0.mlp.switch_mlp.gate_proj", 128**-0.5),
        ("layers.2.mlp.switch_mlp.down_proj", (2 * 4 * 64) ** -0.5),
        ("layers.3.self_attn.q_proj", 128**-0.5),
        ("layers.0.linear_attn.in_proj_qkv", 128**-0.5),
        ("embed_tokens", 1),
    ],
)
def test_matrices_are_centred_with_the_deviation_that_keeps_activations_normal(
    tmp_path: Path, module: str, deviation: float
) -> None:
    write(tmp_path / "model")
    stored = mx.load(str(tmp_path / "model" / "model.safetensors"))
    w, s, b = (stored[f"language_model.model.{module}.{kind}"] for kind in ("weight", "scales", "biases"))
    values = np.array(mx.dequantize(w, s, b, 64, 4).astype(mx.float32))
    assert values.std() == pytest.approx(deviation, rel=0.05)
    assert abs(values.mean()) < 0.3 * deviation if module == "embed_tokens" else abs(values.mean()) < 0.02 * deviation
    assert len(np.unique(np.array(s.astype(mx.float32)))) > 30  # a kernel that takes another group's scale is wrong


def test_a_seed_is_a_checkpoint(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"model.safetensors", MARK}


def test_no_two_tensors_are_the_same(tmp_path: Path) -> None:
    """But for the scales and biases of one module, which are drawn together, and norms' few elements."""
    write(tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    tensors = read_header(tmp_path / "model.safetensors").values()
    spans = [raw[tensor.offset : tensor.offset + tensor.nbytes] for tensor in tensors]
    assert len(set(spans)) == len(spans)


WRITER = """
import sys
from pathlib import Path
from baseline.shapes import make_shape
from baseline.synth import synth

print(synth(make_shape("qwen3.5-35b-a3b", 4, 128, 4992), Path(sys.argv[1]), Path(sys.argv[2])))
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak RSS from /proc")
def test_memory_is_constant(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "dst", TINY_MOE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written, peak = map(int, done.stdout.split())
    bound = 300e6  # Python with MLX and mlx-lm, and a few pieces
    assert written > 3 * bound, "the checkpoint is too small to show anything"
    assert peak * 1024 < bound, f"peak RSS {peak / 1e3:.0f} MB"


class Interrupt:
    """Presses Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, done: int, total: int) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stops", [[1], [70], [50, 40, 3]])
def test_interrupted_anywhere_it_is_no_model_and_goes_on(tmp_path: Path, sharded: None, stops: list[int]) -> None:
    for steps in stops:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "dst", progress=Interrupt(steps))
        with pytest.raises(UsageError, match="is not a model"):
            read_checkpoint(tmp_path / "dst")
    write(tmp_path / "dst")
    write(tmp_path / "whole")
    assert contents(tmp_path / "dst") == contents(tmp_path / "whole")


def test_files_that_are_there_are_not_written_again(tmp_path: Path, sharded: None) -> None:
    write(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(before) > 2
    lost = min(before)
    (tmp_path / lost).unlink()
    steps: list[tuple[int, int]] = []
    total = write(tmp_path, progress=lambda done, total: steps.append((done, total)))
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert {name for name in before if before[name] == after[name]} == before.keys() - {lost}
    assert steps[-1] == (total, total) and [done for done, _ in steps] == sorted(done for done, _ in steps)
    load_model(tmp_path, lazy=True, strict=True)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="foreign is not empty and not made by synth; choose another DST"):
        write(tmp_path / "foreign")
    assert contents(tmp_path / "foreign") == {"config.json": b"{}"}
    write(tmp_path / "dst")
    before = contents(tmp_path / "dst")
    for shape, seed in ((SMALL, 1), (Shape("small", 5, 16, VOCAB), 0)):
        with pytest.raises(UsageError, match=r"dst holds another checkpoint or a part of it: \{.*\}; choose another"):
            write(tmp_path / "dst", shape, seed)
    assert contents(tmp_path / "dst") == before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file: File exists"):
        write(tmp_path / "file")


def test_two_processes_never_write_one_folder(tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        write(tmp_path)

    with pytest.raises(UsageError, match="another nightforge synth is writing"):
        write(tmp_path, progress=again)


def test_free_space_is_checked_before_any_weight_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100e9))
    with pytest.raises(UsageError, match=r"dst needs 223\.01 GB more, 100\.00 GB are available"):
        write(tmp_path / "dst", make_shape("qwen3.5-397b-a17b"))
    assert set(contents(tmp_path / "dst")) == {MARK}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, r"layers must be from 4 \(every fourth has full attention\) to the model's 40, got 3"),
        ({"layers": 41}, "to the model's 40, got 41"),
        ({"experts": 7}, r"experts must be from 8 \(a token uses 8\) to the model's 256, got 7"),
        ({"experts": 257}, "got 257"),
        (
            {"vocab": 100},
            r"vocab must be from 4992 \(the bundled tokenizer has 4992 ids\) to the model's 248320, got 100",
        ),
    ],
)
def test_a_slice_that_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_shape("qwen3.5-35b-a3b", **options, least_vocab=VOCAB)
    with pytest.raises(UsageError, match=r"CONFIG must be one of qwen3\.5-397b-a17b, .*, got 'gpt'"):
        make_shape("gpt", **options)


def test_odd_slices_load_and_answer(tmp_path: Path) -> None:
    """Layers that are no multiple of four, experts that are no power of two."""
    write(tmp_path, Shape("small", 6, 13, VOCAB))
    model, _ = load_resident(tmp_path)
    kinds = ["full" if hasattr(layer, "self_attn") else "linear" for layer in model.language_model.layers]
    assert kinds == ["linear", "linear", "linear", "full", "linear", "linear"]
    assert np.isfinite(np.array(model(mx.array([[1, 2, 3]])))).all()

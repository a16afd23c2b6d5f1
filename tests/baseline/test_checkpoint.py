"""Sources that cannot be packed are refused with one line that names what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.models import llama, qwen3_moe
from mlx_lm.utils import save_config, save_model

from baseline.checkpoint import read_header, write_safetensors
from baseline.errors import UsageError
from baseline.layout import load_layout
from baseline.pack import pack, verify
from tests.models import make_checkpoint

LAYOUT = load_layout(Path(__file__).parents[2] / "kernels" / "layouts" / "whole_expert.yaml")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "src")


def refuse(src: Path, said: str) -> None:
    dst = src.parent / "dst"
    with pytest.raises(UsageError, match=said) as raised:
        pack(src, dst, LAYOUT)
    assert "\n" not in str(raised.value) and not dst.exists()


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    refuse(tmp_path / "none", "none is not a folder; expected an MLX checkpoint")
    (tmp_path / "src").mkdir()
    refuse(tmp_path / "src", r"it has no config\.json")
    (tmp_path / "src" / "config.json").write_text("{}")
    refuse(tmp_path / "src", r"it has no model\*\.safetensors")


def edit_config(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def cut_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate((folder / "model.safetensors").stat().st_size - 1)


def lose_a_tensor(folder: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    del weights["model.norm.weight"]
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda src: (src / "config.json").write_text("{"), r"mlx-lm cannot load .*src: JSONDecodeError"),
        (lambda src: (src / "config.json").write_text("[]"), "mlx-lm cannot load"),
        (lambda src: (src / "config.json").write_text("{}"), "mlx-lm cannot load .*model_type"),
        (edit_config(model_type="nonesuch"), "mlx-lm cannot load .*nonesuch not supported"),
        (edit_config(model_file="evil.py"), "mlx-lm cannot load .*custom"),
        (edit_config(hidden_size=256), "mlx-lm cannot load .*shape"),
        (lose_a_tensor, "mlx-lm cannot load .*Missing 1 parameters"),
        (cut_weights, r"model\.safetensors is truncated: it has \d+ bytes, its header promises \d+"),
        (
            lambda src: (src / "model.safetensors").write_text("version https://git-lfs"),
            "not a safetensors file",
        ),
        (lambda src: (src / "model.safetensors").write_bytes(b""), "not a safetensors file"),
        (
            lambda src: (src / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"[]"),
            "not a safetensors file",
        ),
        (lambda src: (src / "model.safetensors.index.json").write_text("[]"), "not a safetensors index"),
    ],
)
def test_a_damaged_checkpoint(checkpoint: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(checkpoint)
    refuse(checkpoint, said)


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    fields = json.loads(index.read_text())
    fields["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(fields))
    refuse(checkpoint, r"incomplete: model-00002-of-00002\.safetensors is missing \(1 of 2 files\)")


def test_a_hugging_face_checkpoint_is_to_be_converted_first(tmp_path: Path) -> None:
    """Raw checkpoints keep each expert apart; mlx-lm stacks them when it loads."""
    src = make_checkpoint(tmp_path / "src", bits=None)
    arrays = mx.load(str(src / "model.safetensors"))
    for name in [name for name in arrays if ".switch_mlp." in name]:
        stacked = arrays.pop(name)
        for expert in range(stacked.shape[0]):
            arrays[name.replace("switch_mlp", f"experts.{expert}")] = stacked[expert]
    mx.save_safetensors(str(src / "model.safetensors"), arrays)
    refuse(src, r"not an MLX checkpoint: model\.layers\.0\.mlp\.switch_mlp.* convert it first: .*mlx_lm convert")


def test_experts_that_mlx_lm_stores_otherwise_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is in the checkpoint, but mlx-lm transposes what is under it."""
    src = make_checkpoint(tmp_path / "src", bits=None, hidden_size=256)
    name = "model.layers.1.mlp.switch_mlp.down_proj.weight"

    def transposed(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
        return arrays | {name: mx.swapaxes(arrays[name], 1, 2)}

    arrays = transposed(mx.load(str(src / "model.safetensors")))
    mx.save_safetensors(str(src / "model.safetensors"), arrays)
    monkeypatch.setattr(qwen3_moe.Model, "sanitize", lambda self, arrays: transposed(arrays))
    refuse(src, f"not an MLX checkpoint: {name} is not stored as mlx-lm uses it")


def test_a_model_without_experts_is_named_by_its_type(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": 64,
    }
    save_model(tmp_path / "src", llama.Model(llama.ModelArgs.from_dict(config)))
    save_config(config, tmp_path / "src" / "config.json")
    refuse(tmp_path / "src", "is a 'llama' model without SwitchGLU experts")


def test_a_checkpoint_in_several_files_is_packed(checkpoint: Path) -> None:
    """Each expert's tensors are spread over three files, which no index describes."""
    arrays = mx.load(str(checkpoint / "model.safetensors"))
    (checkpoint / "model.safetensors.index.json").unlink()
    single = shutil.copytree(checkpoint, checkpoint.parent / "single")
    (checkpoint / "model.safetensors").unlink()
    for part in range(3):
        names = sorted(arrays)[part::3]
        file = checkpoint / f"model-{part + 1:05d}-of-00003.safetensors"
        mx.save_safetensors(str(file), {name: arrays[name] for name in names})
    split, whole = (pack(src, src.parent / f"{src.name}-packed", LAYOUT) for src in (checkpoint, single))
    assert [layer.checksums for layer in split.layers] == [layer.checksums for layer in whole.layers]
    assert split.resident.checksum == whole.resident.checksum
    verify(checkpoint.parent / "src-packed", checkpoint)


def test_safetensors_are_written_as_mlx_reads_them(tmp_path: Path) -> None:
    arrays = {
        "scalar": mx.array(2.5),
        "half": mx.arange(7).astype(mx.bfloat16),
        "lazy": mx.arange(6).reshape(2, 3).T + 1,
        "bits": mx.array([True, False]),
        "words": mx.array([[2**32 - 1]], dtype=mx.uint32),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, dict(arrays))
    loaded = mx.load(str(path))
    assert loaded.keys() == arrays.keys() == read_header(path).keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
        assert mx.array_equal(loaded[name], array)

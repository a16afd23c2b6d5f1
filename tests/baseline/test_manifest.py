"""A packed model's manifest: what is read back, and each way in which a damaged one is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baseline.errors import CheckError, UsageError
from baseline.layout import load_layout
from baseline.manifest import Manifest, Quantization, load_manifest
from baseline.pack import pack
from tests.models import TINY_MOE

WHOLE_EXPERT = Path(__file__).parents[2] / "kernels" / "layouts" / "whole_expert.yaml"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("manifest") / "packed"
    return folder, pack(TINY_MOE, folder, load_layout(WHOLE_EXPERT))


@pytest.fixture
def copy(packed: tuple[Path, Manifest], tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed[0], tmp_path / "copy"))


def test_what_was_packed_is_read_back(packed: tuple[Path, Manifest]) -> None:
    folder, manifest = packed
    assert load_manifest(folder) == manifest
    assert (manifest.format, manifest.version, manifest.layout.name) == ("nightforge-pack", 1, "whole_expert")


def test_a_manifest_from_before_tensors_were_aligned_is_read(copy: Path) -> None:
    fields = json.loads((copy / "manifest.json").read_text())
    del fields["layout"]["tensor_align"]
    (copy / "manifest.json").write_text(json.dumps(fields))
    assert load_manifest(copy).layout == load_layout(WHOLE_EXPERT)


def test_the_bundled_model_is_described(packed: tuple[Path, Manifest]) -> None:
    manifest = packed[1]
    assert [layer.path for layer in manifest.layers] == [
        f"language_model.model.layers.{i}.mlp.switch_mlp" for i in range(8)
    ]
    layer = manifest.layers[3]
    assert (layer.file, layer.experts, layer.stride) == ("experts/layer_03.bin", 64, 28_672)
    assert layer.segments[-1].end == 27_648
    assert layer.quantization == dict.fromkeys(("gate_proj", "up_proj", "down_proj"), Quantization(64, 4, "affine"))
    assert len(layer.checksums) == 64


def test_resident_modules_keep_their_own_bits(packed: tuple[Path, Manifest]) -> None:
    quantization = packed[1].quantization
    mlp = "language_model.model.layers.0.mlp"
    assert quantization[f"{mlp}.gate"] == Quantization(64, 8, "affine")
    assert quantization[f"{mlp}.shared_expert_gate"] == Quantization(64, 8, "affine")
    assert quantization[f"{mlp}.shared_expert.up_proj"] == Quantization(64, 4, "affine")
    assert "language_model.lm_head" in quantization
    assert not any("switch_mlp" in path for path in quantization)


def test_a_folder_that_is_no_pack_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        load_manifest(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no manifest.json"):
        load_manifest(tmp_path)
    (tmp_path / "pack.journal").touch()
    with pytest.raises(UsageError, match="unfinished"):
        load_manifest(tmp_path)


def damage(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        target: Any = fields
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damage("format", value="gguf"), "format 'gguf'"),
        (damage("version", value=2), "version 2"),
        (lambda fields: fields.pop("format"), "format None"),
        (lambda fields: fields.pop("layers"), "layers"),
        (damage("layers", value=[]), "no layers"),
        (lambda fields: fields["layers"][1].pop("stride"), r"layers\.1\.stride"),
        (damage("layers", 0, "stride", value="28672"), r"layers\.0\.stride"),
        (damage("layers", 0, "stride", value=4096), "leaves its record"),
        (damage("layers", 0, "experts", value=63), "63 experts and 64 checksums"),
        (damage("layers", 0, "file", value="../layer_00.bin"), "leaves the packed"),
        (damage("layers", 0, "file", value="experts/layer_01.bin"), "repeated"),
        (damage("layers", 0, "segments", 0, "offset", value=-4096), "gate_proj.weight at byte -4096"),
        (damage("layers", 0, "segments", 1, "offset", value=0), "overlaps"),
        (damage("layers", 0, "segments", 0, "nbytes", value=1), "cannot have 1 bytes"),
        (damage("layers", 0, "segments", 0, "dtype", value="int3"), "int3"),
        (damage("layers", 0, "segments", 0, "tensor", value="wieght"), "gate_proj.wieght"),
        (lambda fields: fields["layers"][0]["segments"].pop(0), "no segment gate_proj.weight"),
        (damage("quantization", "language_model.lm_head", "bits", value=True), "lm_head.bits"),
        (damage("files", "../../etc", value=""), "leaves the packed"),
    ],
)
def test_a_damaged_manifest_is_refused(copy: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    path = copy / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(CheckError, match=said) as raised:
        load_manifest(copy)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"nightforge-pack"'])
def test_a_manifest_that_is_no_manifest_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(CheckError, match=r"manifest.json is (not JSON|of format None)") as raised:
        load_manifest(copy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["experts/layer_05.bin", "resident.safetensors"])
def test_a_truncated_or_grown_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    size = path.stat().st_size
    for wrong in (size - 1, size + 1, 0):
        with path.open("r+b") as stream:
            stream.truncate(wrong)
        with pytest.raises(CheckError, match=f"{name} has {wrong} bytes; the manifest says {size}"):
            load_manifest(copy)


@pytest.mark.parametrize("name", ["experts/layer_05.bin", "resident.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckError, match=f"{name} is missing"):
        load_manifest(copy)

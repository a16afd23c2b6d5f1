"""Packing copies every byte to where the manifest says, and verify finds each byte that is not as it was."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from baseline.errors import CheckError, UsageError
from baseline.layout import Layout, load_layout
from baseline.manifest import LayerEntry, Manifest, load_manifest
from baseline.pack import fingerprint, pack, verify
from tests.models import TINY_MOE, make_checkpoint

ROOT = Path(__file__).parents[2]
LAYOUT = load_layout(ROOT / "kernels" / "layouts" / "whole_expert.yaml")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "packed"
    pack(TINY_MOE, folder, LAYOUT)
    return folder


def raw(array: mx.array) -> bytes:
    return bytes(memoryview(array.reshape(-1).view(mx.uint8)))


def assert_equals_source(src: Path, dst: Path, manifest: Manifest) -> None:
    """Independent of the packer's own reading: MLX loads the checkpoint."""
    arrays: dict[str, mx.array] = {}
    for file in src.glob("model*.safetensors"):
        arrays |= mx.load(str(file))
    for layer in manifest.layers:
        content = (dst / layer.file).read_bytes()
        assert layer.experts > 0 and len(content) == layer.experts * layer.stride
        stacked = [(segment, arrays.pop(f"{layer.path}.{segment.name}")) for segment in layer.segments]
        for expert in range(layer.experts):
            record = content[expert * layer.stride : (expert + 1) * layer.stride]
            expected = bytearray(layer.stride)
            for segment, array in stacked:
                assert (f"mlx.core.{segment.dtype}", segment.shape) == (str(array.dtype), array.shape[1:])
                expected[segment.offset : segment.end] = raw(array[expert])
            assert record == expected
    resident = mx.load(str(dst / "resident.safetensors"))
    assert resident.keys() == arrays.keys()
    assert all(resident[name].dtype == array.dtype for name, array in arrays.items())
    assert all(raw(resident[name]) == raw(array) for name, array in arrays.items())


def test_the_bundled_model_is_packed_byte_for_byte(packed: Path) -> None:
    assert_equals_source(TINY_MOE, packed, load_manifest(packed))
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (packed / name).read_bytes() == (TINY_MOE / name).read_bytes()
    assert not (packed / "pack.journal").exists() and not list(packed.rglob("*.partial"))
    verify(packed)
    verify(packed, TINY_MOE)


@pytest.mark.parametrize(
    ("family", "bits", "group_size", "dims"),
    [
        ("qwen3_moe", 2, 32, {}),
        ("qwen3_moe", 3, 64, {"num_hidden_layers": 11}),
        ("qwen3_moe", 8, 128, {"hidden_size": 256, "num_experts": 5, "decoder_sparse_step": 2}),
        ("qwen3_moe", None, 64, {}),
        ("olmoe", 4, 128, {}),
        ("olmoe", 6, 32, {"mlp_bias": True}),
        ("qwen3_5_moe", 4, 64, {}),
        ("qwen3_5_moe", 6, 128, {"num_experts": 7}),
    ],
)
def test_random_models_are_packed_byte_for_byte(
    tmp_path: Path, family: str, bits: int | None, group_size: int, dims: dict[str, int]
) -> None:
    src = make_checkpoint(tmp_path / "src", family, bits, group_size, **dims)
    manifest = pack(src, tmp_path / "dst", LAYOUT)
    assert_equals_source(src, tmp_path / "dst", manifest)
    verify(tmp_path / "dst", src)
    model, _ = load_model(src, lazy=True)
    modules = dict(model.named_modules())
    assert len(manifest.layers) == dims.get("num_hidden_layers", 4) // dims.get("decoder_sparse_step", 1)
    numbers = [int(layer.path.split(".layers.")[1].split(".")[0]) for layer in manifest.layers]
    assert numbers == sorted(numbers) and {layer.path for layer in manifest.layers} == {
        path for path in modules if path.endswith(".switch_mlp")
    }
    for layer in manifest.layers:
        for projection, quantization in layer.quantization.items():
            module = modules[f"{layer.path}.{projection}"]
            assert dataclasses.astuple(quantization) == (module.group_size, module.bits, module.mode)
        assert len(layer.quantization) == (0 if bits is None else 3)
    for path, quantization in manifest.quantization.items():
        module = modules[path]
        assert dataclasses.astuple(quantization) == (module.group_size, module.bits, module.mode)


def test_resident_names_are_what_mlx_lm_loads(packed: Path) -> None:
    model, _ = load_model(TINY_MOE, lazy=True)
    resident = mx.load(str(packed / "resident.safetensors"))
    missing = {name for name, _ in tree_flatten(model.parameters())} - resident.keys()
    assert missing and all(".switch_mlp." in name for name in missing)
    model.load_weights(list(resident.items()), strict=False)
    head = model.language_model.lm_head
    assert raw(head.scales) == raw(resident["language_model.lm_head.scales"])


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    manifest = pack(TINY_MOE, tmp_path / "dst", LAYOUT, lambda done, total: steps.append((done, total)))
    arrays = mx.load(str(tmp_path / "dst" / "resident.safetensors"))
    total = sum(layer.nbytes for layer in manifest.layers) + sum(array.nbytes for array in arrays.values())
    assert {whole for _, whole in steps} == {total}
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (total, total)
    steps.clear()
    verify(tmp_path / "dst", TINY_MOE, lambda done, total: steps.append((done, total)))
    assert len(steps) == 8 * 64 + 1 and steps[-1][0] == steps[-1][1]


def test_a_finished_pack_is_returned_at_once(packed: Path) -> None:
    def never(done: int, total: int) -> None:
        raise AssertionError("it packed again")

    before = {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    (packed / "pack.journal").touch()  # as a kill between the manifest and the journal's removal leaves it
    assert pack(TINY_MOE, packed, LAYOUT, never) == load_manifest(packed)
    after = {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    assert after == before


def test_a_finished_pack_of_something_else_is_kept(packed: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other")
    with pytest.raises(UsageError, match="holds 'tiny-moe' in layout whole_expert; choose another DST"):
        pack(other, packed, LAYOUT)
    with pytest.raises(UsageError, match="choose another DST"):
        pack(TINY_MOE, packed, dataclasses.replace(LAYOUT, align=16_384))
    verify(packed, TINY_MOE)


def test_a_damaged_finished_pack_is_not_taken_for_a_good_one(packed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    (copy / "experts" / "layer_02.bin").unlink()
    with pytest.raises(CheckError, match=r"layer_02\.bin is missing"):
        pack(TINY_MOE, copy, LAYOUT)


def test_the_fingerprint_is_the_contents(tmp_path: Path) -> None:
    first, same = make_checkpoint(tmp_path / "a"), make_checkpoint(tmp_path / "b")
    assert fingerprint(first) == fingerprint(same)
    assert fingerprint(first) != fingerprint(make_checkpoint(tmp_path / "c", seed=1))
    assert fingerprint(first) != fingerprint(make_checkpoint(tmp_path / "d", group_size=32))
    config = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert fingerprint(first) != fingerprint(same)


@contextmanager
def flipped(path: Path, offset: int, mask: int = 1) -> Iterator[None]:
    """The file with some bits of one byte flipped."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        original = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([original[0] ^ mask]))
        stream.flush()
        yield
        stream.seek(offset)
        stream.write(original)


@settings(max_examples=25)
@given(layer=st.integers(0, 7), expert=st.integers(0, 63), byte=st.integers(0, 28_671), mask=st.integers(1, 255))
def test_any_flipped_byte_is_found_and_placed(packed: Path, layer: int, expert: int, byte: int, mask: int) -> None:
    entry = load_manifest(packed).layers[layer]
    with flipped(packed / entry.file, expert * entry.stride + byte, mask):
        with pytest.raises(CheckError, match=rf"{entry.file}: layer {layer} .*, expert {expert} is corrupt"):
            verify(packed)
        part = next((s.name for s in entry.segments if s.offset <= byte < s.end), "padding")
        with pytest.raises(CheckError, match=rf"{entry.file}: layer {layer} .*, expert {expert}: {part} differs"):
            verify(packed, TINY_MOE)
    verify(packed)


def with_checksum(layer: LayerEntry, expert: int, record: bytes) -> LayerEntry:
    checksums = list(layer.checksums)
    checksums[expert] = xxhash.xxh3_64_hexdigest(record)
    return dataclasses.replace(layer, checksums=tuple(checksums))


def test_two_experts_swapped_with_their_checksums_are_found_by_the_source(packed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(packed, tmp_path / "copy")
    manifest = load_manifest(copy)
    layer = manifest.layers[6]
    content = (copy / layer.file).read_bytes()
    one, two = content[: layer.stride], content[layer.stride : 2 * layer.stride]
    (copy / layer.file).write_bytes(two + one + content[2 * layer.stride :])
    layers = [*manifest.layers]
    layers[6] = with_checksum(with_checksum(layer, 0, two), 1, one)
    (copy / "manifest.json").write_text(dataclasses.replace(manifest, layers=tuple(layers)).to_json())
    verify(copy)
    with pytest.raises(CheckError, match=r"layer_06\.bin: layer 6 .*, expert 0: gate_proj\.weight differs"):
        verify(copy, TINY_MOE)


@pytest.mark.parametrize("name", ["resident.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_byte_outside_the_experts_is_found(packed: Path, name: str) -> None:
    size = (packed / name).stat().st_size
    for offset in (9, size // 2, size - 1):
        with flipped(packed / name, offset), pytest.raises(CheckError, match=f"{name} is corrupt"):
            verify(packed)


def test_a_source_that_changed_outside_the_experts_is_found(packed: Path, tmp_path: Path) -> None:
    src = shutil.copytree(TINY_MOE, tmp_path / "src")
    (src / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckError, match=r"tokenizer_config\.json differs from"):
        verify(packed, src)
    weights = mx.load(str(TINY_MOE / "model.safetensors"))
    name = "language_model.model.layers.5.input_layernorm.weight"
    weights[name] = weights[name] * 2
    mx.save_safetensors(str(src / "model.safetensors"), weights)
    with pytest.raises(CheckError, match=f"{name} differs from the source"):
        verify(packed, src)


def test_verify_against_another_model_says_so(packed: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "qwen3_5_moe")
    with pytest.raises(CheckError, match=r"manifest\.json does not describe .*other: it was packed from 'tiny-moe'"):
        verify(packed, other)


# The high-water mark of this process alone: ru_maxrss keeps the parent's across fork and exec on Linux.
PEAK = """
import resource, sys
from pathlib import Path
from baseline.layout import load_layout
from baseline.pack import pack, verify

def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small, src, dst, layout = map(Path, sys.argv[1:])
pack(small, dst / "small", load_layout(layout))
before = peak()
pack(src, dst / "large", load_layout(layout))
verify(dst / "large", src)
print(peak() - before)
"""


def test_packing_takes_constant_memory(tmp_path: Path) -> None:
    """A checkpoint of 300 MB, nearly all in one layer's experts, through a process that grows by a few MB."""
    small = make_checkpoint(tmp_path / "src", num_hidden_layers=1, num_experts=8, hidden_size=512, head_dim=128)
    large = shutil.copytree(small, tmp_path / "large")
    copies = 350
    arrays = mx.load(str(small / "model.safetensors"))
    for name in filter(lambda name: ".mlp." in name, arrays):
        arrays[name] = mx.concatenate([arrays[name]] * copies)
    mx.save_safetensors(str(large / "model.safetensors"), arrays)
    config = json.loads((large / "config.json").read_text())
    (large / "config.json").write_text(json.dumps(config | {"num_experts": 8 * copies}))
    (tmp_path / "dst").mkdir()
    layout = ROOT / "kernels" / "layouts" / "whole_expert.yaml"
    command = [sys.executable, "-c", PEAK, small, large, tmp_path / "dst", layout]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (large / "model.safetensors").stat().st_size > 300e6
    assert int(done.stdout) < 30e6


def test_a_layout_is_kept_in_the_manifest(tmp_path: Path) -> None:
    order = tuple(sorted(LAYOUT.order))
    layout = Layout("by_name", "Sorted by name.", 65_536, order)
    manifest = pack(TINY_MOE, tmp_path / "dst", layout)
    assert load_manifest(tmp_path / "dst").layout == layout
    assert [segment.name for segment in manifest.layers[0].segments] == [
        name for name in order if not name.endswith("bias")
    ]
    assert manifest.layers[0].stride == 65_536
    verify(tmp_path / "dst", TINY_MOE)

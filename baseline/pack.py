"""Checkpoint to packed model: experts as records in one file a layer, everything else resident."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import xxhash

from baseline.checkpoint import dtype_name, fingerprint, read_header, tensor_bytes, write_safetensors
from baseline.durable import durable, file_checksum, require_space
from baseline.errors import CheckError
from baseline.layout import Layout
from baseline.manifest import (
    MANIFEST,
    RESIDENT,
    LayerEntry,
    Manifest,
    Resident,
    Source,
    load_manifest,
)
from baseline.meter import Meter, Progress
from baseline.packed_folder import finish, packed_before, unfinished, write_layer, writing, written_bytes
from baseline.plan import ExpertSource, Plan, make_plan

__all__ = ["Progress", "fingerprint", "pack", "verify"]

# What mlx-lm reads besides the weights: configuration, tokenizer, chat template.
COPIED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")


def pack(src: Path, dst: Path, layout: Layout, progress: Progress | None = None) -> Manifest:
    """Pack the MLX checkpoint `src` into the folder `dst`, in constant memory, and return its manifest.

    An interrupted pack, by Ctrl-C, kill -9 or a full disk, goes on with its first unfinished layer when the
    same call is made again; one that is complete is returned at once. Raises UsageError when `src` is not an
    MLX checkpoint with SwitchGLU experts, when `dst` holds anything else, and when the disk is full or not
    writable; CheckError when `dst` is complete but damaged.
    """
    source = Source(src.resolve().name, fingerprint(src))
    with writing(dst):
        if (packed := packed_before(dst, source, layout)) is not None:
            return packed
        plan = make_plan(src, layout)
        require_space(dst, plan.expert_bytes + plan.resident_bytes - written_bytes(dst))
        with unfinished(dst, source, layout) as journal:
            meter = Meter(progress, plan.expert_bytes + plan.resident_bytes)
            with ExpertSource(plan.stored) as experts:
                layers = tuple(write_layer(dst, one, experts.records(one), journal, meter) for one in plan.layers)
            resident = _pack_resident(dst / RESIDENT, plan, meter)
            files = {name: _copy(src / name, dst / name) for name in _copied(src)}
            manifest = Manifest(layout, source, plan.quantization, layers, resident, files)
            finish(dst, manifest, journal)
    return manifest


def _pack_resident(path: Path, plan: Plan, meter: Meter) -> Resident:
    nbytes = plan.resident_bytes
    with durable(path) as partial:
        write_safetensors(partial, plan.resident)
    meter.advance(nbytes)
    return Resident(path.name, path.stat().st_size, file_checksum(path))


def _copied(src: Path) -> list[str]:
    """Names of the files beside the weights that a packed model takes along."""
    names = {path.name for pattern in COPIED for path in src.glob(pattern) if path.is_file()}
    return sorted(name for name in names if name != MANIFEST and not name.endswith(".index.json"))


def _copy(src: Path, dst: Path) -> str:
    with durable(dst) as partial:
        shutil.copyfile(src, partial)
    return file_checksum(dst)


def verify(dst: Path, src: Path | None = None, progress: Progress | None = None) -> None:
    """Check every byte of a packed model against its checksums and, given `src`, against the checkpoint.

    Raises CheckError naming file, layer and expert, and with `src` the tensor too; UsageError when `dst` is
    no packed model or `src` no checkpoint.
    """
    manifest = load_manifest(dst)
    plan = None if src is None else _expected(dst, manifest, src)
    meter = Meter(progress, sum(layer.nbytes for layer in manifest.layers) + manifest.resident.nbytes)
    try:
        with ExpertSource(plan.stored if plan else {}) as source:
            for index, layer in enumerate(manifest.layers):
                _verify_layer(dst / layer.file, index, layer, source.records(layer) if plan else None, meter)
        for name, checksum in {**manifest.files, manifest.resident.file: manifest.resident.checksum}.items():
            if file_checksum(dst / name) != checksum:
                raise CheckError(f"{dst / name} is corrupt: its checksum is not the manifest's")
        if src is not None and plan is not None:
            _verify_rest(dst, manifest, src, plan)
        meter.advance(manifest.resident.nbytes)
    except OSError as error:
        raise CheckError(f"{error.filename or dst} cannot be read: {error.strerror}") from None


def _expected(dst: Path, manifest: Manifest, src: Path) -> Plan:
    plan = make_plan(src, manifest.layout)
    packed = tuple(dataclasses.replace(layer, checksums=()) for layer in manifest.layers)
    if (packed, manifest.quantization) != (plan.layers, plan.quantization):
        raise CheckError(f"{dst / MANIFEST} does not describe {src}: it was packed from {manifest.source.name!r}")
    return plan


def _verify_layer(
    path: Path, index: int, layer: LayerEntry, originals: Iterator[memoryview] | None, meter: Meter
) -> None:
    with path.open("rb") as stream:
        for expert, checksum in enumerate(layer.checksums):
            record = stream.read(layer.stride)
            where = f"{path}: layer {index} ({layer.path}), expert {expert}"
            if originals is not None and record != (original := bytes(next(originals))):
                raise CheckError(f"{where}: {_first_difference(layer, record, original)} differs from the source")
            if xxhash.xxh3_64_hexdigest(record) != checksum:
                raise CheckError(f"{where} is corrupt: its checksum is not the manifest's")
            meter.advance(len(record))


def _first_difference(layer: LayerEntry, record: bytes, original: bytes) -> str:
    for segment in layer.segments:
        span = slice(segment.offset, segment.end)
        if record[span] != original[span]:
            return segment.name
    return "padding"


def _verify_rest(dst: Path, manifest: Manifest, src: Path, plan: Plan) -> None:
    path = dst / manifest.resident.file
    stored = read_header(path)
    if stored.keys() != plan.resident.keys():
        odd = sorted(stored.keys() ^ plan.resident.keys())
        raise CheckError(f"{path}: {odd[0]} is in it or in {src}, not in both")
    with path.open("rb") as stream:
        for name, tensor in stored.items():
            array = plan.resident.pop(name)
            stream.seek(tensor.offset)
            same_kind = (tensor.dtype, tensor.shape) == (dtype_name(array), tuple(array.shape))
            if not same_kind or stream.read(tensor.nbytes) != bytes(tensor_bytes(array)):
                raise CheckError(f"{path}: {name} differs from the source")
    for name in sorted({*manifest.files, *_copied(src)}):
        if not (src / name).is_file() or manifest.files.get(name) != file_checksum(src / name):
            raise CheckError(f"{dst / name} differs from {src / name}")

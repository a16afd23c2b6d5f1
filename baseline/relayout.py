"""A packed model in another layout, without its checkpoint: each expert's tensors are moved, nothing else changes."""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import xxhash

from baseline.checkpoint import read_into
from baseline.durable import durable, require_space
from baseline.errors import CheckError
from baseline.layout import Layout, Segment, arrange, record_stride
from baseline.manifest import LayerEntry, Manifest, load_manifest
from baseline.meter import Meter, Progress
from baseline.packed_folder import finish, packed_before, unfinished, write_layer, writing, written_bytes


def relayout(packed: Path, dst: Path, layout: Layout, progress: Progress | None = None) -> Manifest:
    """Convert the packed model `packed` into the folder `dst`, a record at a time, and return its manifest.

    What is not an expert is linked to, on another disk copied. An interrupted conversion goes on with its first
    unfinished layer when the same call is made again; one that is complete is returned at once. Raises CheckError
    naming layer and expert of a record that is not what was packed; UsageError when `packed` is no packed model, when
    `dst` holds anything else, and when the disk is full or not writable.
    """
    old = load_manifest(packed)
    with writing(dst):
        if (done := packed_before(dst, old.source, layout)) is not None:
            return done
        layers = [_rearranged(layer, layout) for layer in old.layers]
        nbytes = sum(layer.nbytes for layer in layers)
        require_space(dst, nbytes + _copied_bytes(packed, dst, old) - written_bytes(dst))
        with unfinished(dst, old.source, layout) as journal:
            meter = Meter(progress, nbytes)
            pairs = zip(old.layers, layers, strict=True)
            moved = [
                write_layer(dst, new, rearrange(packed, index, layer, new), journal, meter)
                for index, (layer, new) in enumerate(pairs)
            ]
            for name in _others(old):
                _link(packed / name, dst / name)
            manifest = dataclasses.replace(old, layout=layout, layers=tuple(moved))
            finish(dst, manifest, journal)
    return manifest


def verify_relayout(dst: Path, packed: Path, progress: Progress | None = None) -> None:
    """Check that `dst`, moved back, would be `packed`: every record has then the checksum that it has there.

    Raises CheckError naming layer and expert where one has not. That of all other files are `baseline.pack.verify`'s.
    """
    new, old = load_manifest(dst), load_manifest(packed)
    same = {name: (getattr(new, name), getattr(old, name)) for name in ("source", "quantization", "resident", "files")}
    if other := [name for name, (mine, its) in same.items() if mine != its]:
        raise CheckError(f"{dst} is no conversion of {packed}: its {other[0]} is another")
    meter = Meter(progress, sum(layer.nbytes for layer in new.layers))
    for index, (layer, wanted) in enumerate(zip(new.layers, old.layers, strict=True)):
        back = rearrange(dst, index, layer, wanted)
        for expert, (record, checksum) in enumerate(zip(back, wanted.checksums, strict=True)):
            if xxhash.xxh3_64_hexdigest(record) != checksum:
                raise CheckError(f"{_where(dst, index, layer, expert)} differs from {packed / wanted.file}")
            meter.advance(layer.stride)


def rearrange(packed: Path, index: int, old: LayerEntry, new: LayerEntry) -> Iterator[memoryview]:
    """The records of layer `index` of `packed` in turn, as `new` has them: zeros between and after the tensors.

    The buffer is reused: a record is valid until the next one is asked for. CheckError for one that is corrupt.
    """
    path, record = packed / old.file, memoryview(bytearray(old.stride))
    moved, places = memoryview(bytearray(new.stride)), {segment.name: segment for segment in new.segments}
    with path.open("rb") as stream:
        for expert, checksum in enumerate(old.checksums):
            read_into(stream.fileno(), record, expert * old.stride, path)
            if xxhash.xxh3_64_hexdigest(record) != checksum:
                where = _where(packed, index, old, expert)
                raise CheckError(f"{where} is corrupt: its checksum is not the manifest's")
            _move(record, old.segments, moved, places)
            yield moved


def _move(record: memoryview, segments: tuple[Segment, ...], to: memoryview, places: Mapping[str, Segment]) -> None:
    for segment in segments:
        place = places[segment.name]
        to[place.offset : place.end] = record[segment.offset : segment.end]


def _where(packed: Path, index: int, layer: LayerEntry, expert: int) -> str:
    return f"{packed / layer.file}: layer {index} ({layer.path}), expert {expert}"


def _rearranged(layer: LayerEntry, layout: Layout) -> LayerEntry:
    """A layer as it lies in another layout, without checksums."""
    segments = arrange(layout, {segment.name: (segment.dtype, segment.shape) for segment in layer.segments})
    return dataclasses.replace(layer, segments=segments, stride=record_stride(layout, segments), checksums=())


def _others(manifest: Manifest) -> list[str]:
    """The files of a packed model that hold no experts."""
    return [manifest.resident.file, *manifest.files]


def _copied_bytes(packed: Path, dst: Path, manifest: Manifest) -> int:
    """What the disk of `dst` must hold beside the experts: nothing where it is that of `packed`."""
    absolute = dst.absolute()
    disk = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    if disk.stat().st_dev == packed.stat().st_dev:
        return 0
    return sum((packed / name).stat().st_size for name in _others(manifest))


def _link(src: Path, dst: Path) -> None:
    """Another name for a file, or a copy where there cannot be one: on another disk, or one that knows no links."""
    dst.unlink(missing_ok=True)  # renaming one name of a file to another does nothing
    with durable(dst) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(src.resolve(), partial)
        except OSError:
            shutil.copyfile(src, partial)

"""What a packed model says about itself: `manifest.json`, read and checked."""

import dataclasses
import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Literal

import pydantic

from baseline.durable import file_checksum
from baseline.errors import CheckError, UsageError
from baseline.layout import ITEM_BYTES, PAGE, PROJECTIONS, TENSORS, Layout, Segment, first_problem

MANIFEST = "manifest.json"
JOURNAL = "pack.journal"
RESIDENT = "resident.safetensors"


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How mlx-lm instantiated one quantised module; `mode` is MLX's (affine, mxfp4, ...)."""

    group_size: int
    bits: int
    mode: str


@dataclasses.dataclass(frozen=True)
class Source:
    """The checkpoint that was packed; `fingerprint` is `baseline.checkpoint.fingerprint`'s."""

    name: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Resident:
    """The safetensors file of everything that is not an expert; `checksum` is xxh3_64 of the whole file."""

    file: str
    nbytes: int
    checksum: str


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """The experts of one SwitchGLU: expert e's record is the `stride` bytes at e * stride of `file`.

    `path` is the module's path in mlx-lm's model, `quantization` holds a value for each quantised projection,
    `checksums` the xxh3_64 of each record, padding included.
    """

    path: str
    file: str
    experts: int
    stride: int
    segments: tuple[Segment, ...]
    quantization: dict[str, Quantization]
    checksums: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return self.experts * self.stride


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A packed model. `quantization` is that of the resident modules by path; `files` are copies of the
    source's configuration and tokenizer files with their xxh3_64."""

    layout: Layout
    source: Source
    quantization: dict[str, Quantization]
    layers: tuple[LayerEntry, ...]
    resident: Resident
    files: dict[str, str]
    format: Literal["nightforge-pack"] = "nightforge-pack"
    version: Literal[1] = 1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)


def load_manifest(folder: Path) -> Manifest:
    """Read a packed model's manifest and check that its files are there and have their sizes.

    Raises UsageError when `folder` is no packed model, CheckError when it is one that is damaged or that
    another version wrote. Contents are `baseline.pack.verify`'s to check.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(_not_packed(folder))
    try:
        text = path.read_bytes()
        _check_format(path, json.loads(text))
        manifest = pydantic.TypeAdapter(Manifest).validate_json(text, strict=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise CheckError(f"{path}: {first_problem(error)}") from None
    except ValueError as error:
        raise CheckError(f"{path} is not JSON: {error}") from None
    for problem in _problems(manifest):
        raise CheckError(f"{path}: {problem}")
    _check_files(folder, manifest)
    return manifest


def _not_packed(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder; pack a checkpoint with: nightforge pack SRC DST"
    if (folder / JOURNAL).is_file():
        return f"{folder} is an unfinished pack; the same nightforge pack command continues it"
    return f"{folder} is not a packed model: it has no {MANIFEST}; make one with: nightforge pack SRC DST"


def _check_format(path: Path, fields: object) -> None:
    found = (fields.get("format"), fields.get("version")) if isinstance(fields, dict) else (None, None)
    if found != (Manifest.format, Manifest.version):
        raise CheckError(
            f"{path} is of format {found[0]!r} version {found[1]!r}; "
            f"this nightforge reads {Manifest.format!r} version {Manifest.version}"
        )


def _problems(manifest: Manifest) -> Iterator[str]:
    """What JSON types cannot say: a reader uses these numbers as addresses, so they must be consistent."""
    if not manifest.layers:
        yield "it has no layers"
    names = [
        manifest.resident.file,
        *manifest.files,
        *(layer.file.removeprefix("experts/") for layer in manifest.layers),
    ]
    for name in names:
        if name in ("", ".", "..") or "/" in name or names.count(name) > 1:
            yield f"file name {name!r} is repeated or leaves the packed model's folder"
    for layer in manifest.layers:
        if layer.stride < PAGE or layer.stride % PAGE:
            yield f"{layer.file} has records of {layer.stride} bytes, no multiple of {PAGE}"
        if layer.experts < 1 or len(layer.checksums) != layer.experts:
            yield f"{layer.file} has {layer.experts} experts and {len(layer.checksums)} checksums"
        yield from (f"{layer.file}: {problem}" for problem in _segment_problems(layer))


def _segment_problems(layer: LayerEntry) -> Iterator[str]:
    end = 0
    for segment in sorted(layer.segments, key=lambda segment: segment.offset):
        if segment.projection not in PROJECTIONS or segment.tensor not in TENSORS:
            yield f"unknown segment {segment.name}"
        elif segment.dtype not in ITEM_BYTES:
            yield f"{segment.name} has dtype {segment.dtype!r}; known are {', '.join(ITEM_BYTES)}"
        elif segment.nbytes < 1 or segment.nbytes != prod(segment.shape) * ITEM_BYTES[segment.dtype]:
            yield f"{segment.name} of {segment.dtype}{list(segment.shape)} cannot have {segment.nbytes} bytes"
        elif segment.offset < end or segment.end > layer.stride or segment.offset % ITEM_BYTES[segment.dtype]:
            yield f"{segment.name} at byte {segment.offset} overlaps, is unaligned or leaves its record"
        end = segment.end
    for projection in PROJECTIONS:
        if not any(segment.name == f"{projection}.weight" for segment in layer.segments):
            yield f"no segment {projection}.weight"


def check_copies(folder: Path, manifest: Manifest) -> None:
    """CheckError when a copied configuration or tokenizer file, which mlx-lm reads, is not the one that was packed."""
    for name, checksum in manifest.files.items():
        if file_checksum(folder / name) != checksum:
            raise CheckError(f"{folder / name} is not the file that was packed: its checksum differs")


def _check_files(folder: Path, manifest: Manifest) -> None:
    sizes = {layer.file: layer.nbytes for layer in manifest.layers}
    sizes[manifest.resident.file] = manifest.resident.nbytes
    for name in [*sizes, *manifest.files]:
        path = folder / name
        if not path.is_file():
            raise CheckError(f"{path} is missing")
        if name in sizes and path.stat().st_size != sizes[name]:
            raise CheckError(f"{path} has {path.stat().st_size} bytes; the manifest says {sizes[name]}")

"""A packed model's folder while it is written: layer by layer, its manifest last, so that no half is taken for it."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from baseline.durable import durable
from baseline.errors import UsageError
from baseline.journal import Journal
from baseline.layout import Layout
from baseline.manifest import JOURNAL, MANIFEST, LayerEntry, Manifest, Source, load_manifest
from baseline.meter import Meter


@contextmanager
def writing(dst: Path) -> Iterator[None]:
    """Turn the disk's refusals (full, read-only, no permission) into one line."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or dst}: {error.strerror}; "
            "finished layers are kept: once this is mended the same command continues"
        ) from None


def packed_before(dst: Path, source: Source, layout: Layout) -> Manifest | None:
    """The finished pack of this source in `dst`; None when there is room for one, or an unfinished one."""
    if (dst / MANIFEST).is_file():
        manifest = load_manifest(dst)
        if (manifest.source.fingerprint, manifest.layout) != (source.fingerprint, layout):
            raise UsageError(
                f"{dst} holds {manifest.source.name!r} in layout {manifest.layout.name}; choose another DST"
            )
        (dst / JOURNAL).unlink(missing_ok=True)
        return manifest
    if dst.is_dir() and any(dst.iterdir()) and not (dst / JOURNAL).is_file():
        raise UsageError(f"{dst} is not empty and not a pack; choose another DST")
    return None


@contextmanager
def unfinished(dst: Path, source: Source, layout: Layout) -> Iterator[Journal]:
    """Make the folder, or go on with it. The journal comes first: it marks the folder as ours, should the next line
    be the last."""
    dst.mkdir(parents=True, exist_ok=True)
    with Journal(dst, source, layout) as journal:
        (dst / "experts").mkdir(exist_ok=True)
        yield journal


def written_bytes(dst: Path) -> int:
    """What an earlier call has written of the experts."""
    return sum(path.stat().st_size for path in (dst / "experts").glob("*"))


def write_layer(
    dst: Path, layer: LayerEntry, records: Iterable[memoryview], journal: Journal, meter: Meter
) -> LayerEntry:
    """Write the records of a layer, each looked at once; `layer` with their checksums. One that the journal says is
    finished is left as it is, and `records` alone."""
    path = dst / layer.file
    finished = journal.finished.get(layer.file)
    if finished is not None and path.is_file() and path.stat().st_size == layer.nbytes:
        meter.advance(layer.nbytes)
        return dataclasses.replace(layer, checksums=finished)
    checksums = []
    with durable(path) as partial, partial.open("wb") as stream:
        for record in records:
            stream.write(record)
            checksums.append(xxhash.xxh3_64_hexdigest(record))
            meter.advance(len(record))
    journal.finish(layer.file, tuple(checksums))
    return dataclasses.replace(layer, checksums=tuple(checksums))


def finish(dst: Path, manifest: Manifest, journal: Journal) -> None:
    """Make the folder a packed model, which all other files of it are there for."""
    with durable(dst / MANIFEST) as partial:
        partial.write_text(manifest.to_json())
    journal.remove()

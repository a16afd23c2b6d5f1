"""What a search is judged by must stay as it was: the golden record, the contracts, the oracle, the model."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import baseline.reference
from baseline.errors import CheckError, UsageError
from baseline.manifest import MANIFEST, load_manifest
from harness.settings import OPS, SearchSettings

Stamps = list[tuple[str, int, int]]


def sealed_files(settings: SearchSettings) -> dict[str, list[Path]]:
    """The files that a search is judged by, under the names that a person knows them by."""
    return {
        "golden record": sorted(settings.golden.glob("golden.*")),
        "contracts": [path for op in OPS if (path := settings.kernels / op / "contract.yaml").exists()],
        "oracle": [Path(baseline.reference.__file__)],
    }


def digests(settings: SearchSettings) -> dict[str, str]:
    """A hash of the content of each of `sealed_files`. OSError when one cannot be read."""
    return {name: _digest(paths) for name, paths in sealed_files(settings).items()}


def model_files(packed: Path) -> list[Path]:
    """The files of a packed model: they are too large to be read again, and known by their sizes and times."""
    manifest = load_manifest(packed)
    layers = [layer.file for layer in manifest.layers]
    return [packed / name for name in (MANIFEST, manifest.resident.file, *layers, *manifest.files)]


class Seal:
    """The files of a search, and those of its model, as they are now. OSError when one cannot be read."""

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.digests = digests(settings)
        self._stamps = stamps(self._sealed())
        self._model = stamps(model_files(settings.packed))

    def check(self, thoroughly: bool) -> None:
        """CheckError naming what changed since the search began.

        Files are read again where `thoroughly` is asked, or where the size or the time of one is another; those of the
        model never are.
        """
        try:
            sealed = stamps(self._sealed())
            now = digests(self.settings) if thoroughly or sealed != self._stamps else self.digests
            model = stamps([Path(path) for path, *_ in self._model])
        except OSError as error:
            raise CheckError(f"{error.filename} changed during the search: {error.strerror}") from None
        changed = [f"the {name}" for name, began in self.digests.items() if now[name] != began]
        changed += [before[0] for before, after in zip(self._model, model, strict=True) if before != after]
        if changed:
            raise CheckError(f"{changed[0]} changed during the search: what it found is in {self.settings.run}")
        self._stamps = sealed

    @contextmanager
    def speaks_first(self) -> Iterator[None]:
        """Where something fails because a file changed, it is the change that is said, by a CheckError."""
        try:
            yield
        except (CheckError, UsageError, RuntimeError, OSError):
            self.check(thoroughly=True)
            raise

    def _sealed(self) -> list[Path]:
        return [path for paths in sealed_files(self.settings).values() for path in paths]


def stamps(files: Sequence[Path]) -> Stamps:
    """Path, size and time of each file. OSError when one is not there."""
    return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]


def _digest(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]

"""What a search is judged by must stay as it was: the golden record, the contracts, the oracle."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import baseline.reference
from baseline.errors import CheckError
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


class Seal:
    """The files of a search as they are now. OSError when one cannot be read."""

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.digests = digests(settings)
        self._stamps = self._look()

    def check(self, thoroughly: bool) -> None:
        """CheckError naming what changed since the search began.

        Files are read again where `thoroughly` is asked, or where the size or the time of one is another.
        """
        try:
            stamps = self._look()
            now = digests(self.settings) if thoroughly or stamps != self._stamps else self.digests
        except OSError as error:
            raise CheckError(f"{error.filename} changed during the search: {error.strerror}") from None
        for name, began in self.digests.items():
            if now[name] != began:
                raise CheckError(f"the {name} changed during the search: what it found is in {self.settings.run}")
        self._stamps = stamps

    def _look(self) -> Stamps:
        files = [path for paths in sealed_files(self.settings).values() for path in paths]
        return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]


def _digest(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]

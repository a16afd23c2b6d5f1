"""A search's model in other layouts: each is converted once, into the build cache, where later searches find it."""

import hashlib
import json
import time
from pathlib import Path

from baseline.errors import CheckError, UsageError
from baseline.layout import Layout
from baseline.manifest import Manifest, load_manifest
from baseline.relayout import relayout
from harness.candidate import Built, Failure, Status
from harness.seal import Stamps, model_files, stamps

MODELS = "models"  # the folder of the build cache that keeps them


def place(cache: Path, manifest: Manifest, layout: Layout) -> Path:
    """Where a packed model is kept in another layout: the folder's name says of which checkpoint, and in which."""
    content = json.dumps(layout.to_json(), sort_keys=True)
    return cache / MODELS / f"{manifest.source.fingerprint}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


class Converted:
    """The packed model of a search, and what was made of it."""

    def __init__(self, packed: Path, cache: Path) -> None:
        """UsageError or CheckError when `packed` is no packed model, or a damaged one."""
        self.manifest = load_manifest(packed)
        self._packed, self._cache = packed, cache
        self._made: dict[Path, Stamps] = {}

    @property
    def layout(self) -> Layout:
        """The model's own."""
        return self.manifest.layout

    def folder(self, layout: Layout | None) -> Path:
        """The model in a layout, converted where it was not yet; None is its own.

        UsageError where the disk is full or refuses; CheckError where a record is damaged, or where a file of what was
        made has changed since.
        """
        if layout is None or layout.lies_as(self.layout):
            return self._packed
        folder = place(self._cache, self.manifest, layout)
        if folder not in self._made:
            relayout(self._packed, folder, layout)
            self._made[folder] = stamps(model_files(folder))
        self._check(folder)
        return folder

    def build(self, layout: Layout | None) -> Built:
        """A layout's build stage: too little room for the model is a failure like any other. CheckError as `folder`."""
        started = time.perf_counter()
        try:
            self.folder(layout)
        except UsageError as error:
            failure = Failure(Status.FAILED_BUILD, f"the model was not converted: {error}")
            return Built(time.perf_counter() - started, failure, failure.reason)
        return Built(time.perf_counter() - started)

    def _check(self, folder: Path) -> None:
        for before in self._made[folder]:
            path = Path(before[0])
            if not path.exists() or stamps([path]) != [before]:
                raise CheckError(f"{path} changed during the search")

"""What an unfinished pack has finished: one JSON line a layer, on the disk before the next layer starts."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from baseline.errors import UsageError
from baseline.layout import Layout
from baseline.manifest import JOURNAL, Source


class Journal:
    """The journal of `folder`, locked while it is open, so that two packs never write one folder.

    The first line names the source and the layout; UsageError when they are not the given ones. `finished`
    maps a layer's file to its checksums. A line that a crash tore is dropped: its layer is packed again.
    """

    def __init__(self, folder: Path, source: Source, layout: Layout) -> None:
        self._path = folder / JOURNAL
        self._stream = self._path.open("a+b")
        self.finished: dict[str, tuple[str, ...]] = {}
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(source, layout)
        except BlockingIOError:
            self._stream.close()
            raise UsageError(f"another nightforge pack is writing {folder}; wait for it or end it") from None
        except UsageError:
            self._stream.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def finish(self, file: str, checksums: tuple[str, ...]) -> None:
        """Record that `file` is complete and on the disk."""
        self._append({"file": file, "checksums": checksums})
        self.finished[file] = checksums

    def remove(self) -> None:
        self._path.unlink()

    def _append(self, line: dict[str, Any]) -> dict[str, Any]:
        self._stream.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return line

    def _read(self, source: Source, layout: Layout) -> None:
        self._stream.seek(0)
        whole, newline, _ = self._stream.read().rpartition(b"\n")
        self._stream.truncate(len(whole) + len(newline))
        head = {"fingerprint": source.fingerprint, "layout": layout.to_json()}
        try:
            lines = [json.loads(line) for line in whole.splitlines()] or [self._append(head)]
            same = lines[0] == head
            self.finished = {line["file"]: tuple(line["checksums"]) for line in lines[1:]}
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self._path} is damaged; delete {self._path.parent} and pack again") from None
        if not same:
            raise UsageError(
                f"{self._path.parent} holds an unfinished pack of another source or layout; use another DST"
            )

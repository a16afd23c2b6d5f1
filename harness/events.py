"""The record of what happened beside the candidates of a search, and of what it cost: a JSON object a line."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from baseline.errors import CheckError
from harness import strict_json
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage


class Events:
    """The events of a run whose ledger is ours."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist. A last line that a kill has cut is cut off."""
        self.path = path
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def record(self, event: Event) -> None:
        """Records an event, for good: one write, then fsync. OSError when the disk is full."""
        with self.path.open("ab") as file:
            file.write(strict_json.dumps(asdict(event), indent=None).encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[Event]:
        """All events, oldest first. CheckError names a line that is none."""
        return load_events(self.path)


def load_events(path: Path) -> Iterator[Event]:
    """All events of a record, oldest first; none when there is no file.

    A last line without its newline was cut by a kill and is no event. CheckError names any other line that is none.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            yield _event(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckError(f"{path} line {number}: damaged event ({error!r})") from error


def _event(record: dict[str, str | float | None]) -> Event:
    usd = math.nan if record["usd"] is None else float(str(record["usd"]))
    usage = Usage(**record["usage"])  # type: ignore[arg-type]
    return Event(Kind(str(record["kind"])), str(record["reason"]), usage, usd, str(record["model"]))

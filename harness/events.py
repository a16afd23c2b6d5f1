"""The record of what happened beside the candidates of a search, and of what it cost: a JSON object a line."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from harness import json_lines
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage


class Events:
    """The events of a run whose ledger is ours."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist. A last line that a kill has cut is cut off."""
        self.path = path
        json_lines.mend(path)

    def record(self, event: Event) -> None:
        """Records an event, for good. OSError when the disk is full."""
        json_lines.append(self.path, asdict(event))

    def read(self) -> Iterator[Event]:
        """All events, oldest first. CheckError names a line that is none."""
        return load_events(self.path)


def load_events(path: Path) -> Iterator[Event]:
    """All events of a record, oldest first; none when there is no file. CheckError names a line that is none."""
    return json_lines.load(path, _event, "event")


def _event(record: dict[str, str | float | None]) -> Event:
    usd = math.nan if record["usd"] is None else float(str(record["usd"]))
    usage = Usage(**record["usage"])  # type: ignore[arg-type]
    return Event(Kind(str(record["kind"])), str(record["reason"]), usage, usd, str(record["model"]))

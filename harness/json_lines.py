"""Records that grow by a JSON object a line, of which a kill takes no more than the line that was being written."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from baseline.errors import CheckError
from harness import strict_json

Entry = TypeVar("Entry")


def mend(path: Path) -> None:
    """Cuts off a last line that a kill has cut; `path` need not exist."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def append(path: Path, record: Any) -> None:
    """Adds a line, for good: one write, then fsync. OSError when the disk is full."""
    with path.open("ab") as file:
        file.write(strict_json.dumps(record, indent=None).encode())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, parse: Callable[[Any], Entry], what: str) -> Iterator[Entry]:
    """What `parse` makes of each line, oldest first; nothing when there is no file.

    A last line without its newline was cut by a kill, and is left out. CheckError names any other line that `parse`
    does not take (ValueError, KeyError, TypeError) as a damaged `what`.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            yield parse(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckError(f"{path} line {number}: damaged {what} ({error!r})") from error

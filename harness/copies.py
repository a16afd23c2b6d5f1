"""A file of the inputs that the launches of a contest share, the weights: as many copies as no cache holds.

Each copy has content of its own. Were they equal, a kernel could read the first one, which would then stay in the
cache, wherever it is told to read another.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from baseline.elements import Array
from harness.slots import Fields, record


def save_copies(file: Path, fields: Fields, count: int, copies: Iterable[Mapping[str, Array]]) -> None:
    """Writes `count` copies, each the arrays that `fields` describe by name: a record for each."""
    records = np.empty(count, record(fields))
    for number, arrays in zip(range(count), copies, strict=True):
        for name, array in arrays.items():
            records[name][number] = array
    partial = file.with_suffix(".partial.npy")
    np.save(partial, records, allow_pickle=False)
    partial.replace(file)


def load_copies(file: Path) -> dict[str, Array]:
    """What `save_copies` wrote, [copies, ...] by name in the order of the fields, all of it in memory."""
    return _by_name(np.load(file))


def map_copies(file: Path) -> dict[str, Array]:
    """As `load_copies`, for who looks at few copies: each is read from the file when it is looked at."""
    return _by_name(np.load(file, mmap_mode="r"))


def _by_name(records: Array) -> dict[str, Array]:
    return {name: records[name] for name in records.dtype.names or ()}

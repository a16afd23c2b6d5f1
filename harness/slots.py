"""Memory that a contest and its child share: for each launch of a repetition a slot, with the activations that it gets
and the outputs that it makes.

The contest writes and reads it as its own, and believes nothing that the child says of it. No launch writes where
another one has: whether each has done its work can be seen.
"""

import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from baseline.contract import Contract, Tensor
from baseline.elements import STORAGE, Array

Fields = Mapping[str, Sequence[Any]]
"""Numpy dtype and shape of each tensor."""

FRESH_BYTES = 1 << 20  # larger inputs are weights, or a state: the same for all
SHARED_BYTES = 128 << 20  # none of it is there before it is written
LINE = 64


def fresh(contract: Contract) -> list[Tensor]:
    """The inputs of which every launch at the bench shape gets values of its own."""
    kinds = [t for t in contract.inputs if t.type in ("T", "float32")]
    return [t for t in kinds if np.dtype(field(contract, t)).itemsize <= FRESH_BYTES]


def fields(contract: Contract) -> Fields:
    """What a slot of a launch at the bench shape holds."""
    return {t.name: field(contract, t) for t in (*fresh(contract), *contract.outputs)}


class Slots:
    """`arrays[name]` is [count, ...]: a tensor of all slots."""

    def __init__(self, fields: Fields, count: int, descriptor: int) -> None:
        """Maps the memory behind `descriptor`."""
        slot = record(fields)
        slots = np.frombuffer(mmap.mmap(descriptor, count * slot.itemsize), slot)
        self.count, self.descriptor = count, descriptor
        self.arrays: dict[str, Array] = {name: slots[name] for name in fields}
        self._fields = fields

    @classmethod
    def new(cls, fields: Fields) -> "Slots":
        """As many as fit into SHARED_BYTES."""
        nbytes = record(fields).itemsize
        count = max(SHARED_BYTES // nbytes, 1)
        return cls(fields, count, _memory(count * nbytes))

    def to_json(self) -> dict[str, Any]:
        """As a child's job wants it; the child inherits the descriptor."""
        return {"fields": self._fields, "count": self.count, "descriptor": self.descriptor}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Slots":
        """The same memory, in the child."""
        return cls(**record)


def unwritten(array: Array) -> int:
    """How many elements are still what `poison` made of them."""
    words, poison = _words(array)
    return int((words == poison).sum()) if words.max() == poison else 0


def poison(array: Array) -> None:
    """Makes every element what no kernel writes: `harness.guarded.POISON` in each byte."""
    words, value = _words(array)
    words[...] = value


def _words(array: Array) -> tuple[Array, int]:
    """An array's elements as unsigned integers, and the greatest that one can be."""
    words = array.view(f"u{array.itemsize}")
    return words, int(np.iinfo(words.dtype).max)


def field(contract: Contract, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """A tensor's numpy dtype and shape at the bench shape."""
    case = contract.bench[0]
    return STORAGE[contract.element_type(tensor, case.constants)].name, contract.shape(tensor, case)


def record(fields: Fields) -> np.dtype[Any]:
    """One slot, or one copy of the inputs. Its tensors begin at a cache line, and between them is one: most have sizes
    that are powers of two, and would be as far from the end of a page in every one."""
    formats = [(name, tuple(shape)) for name, shape in fields.values()]
    offsets, end = [], 0
    for form in formats:
        offsets.append(end + LINE)
        end += LINE + -(-np.dtype(form).itemsize // LINE) * LINE
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": end})


def _memory(nbytes: int) -> int:
    """A descriptor of so much new memory, which no file name leads to. On Linux nobody can take any of it away: who
    reads what is gone dies. OSError where there is none."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(descriptor, nbytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile() as file:
        file.truncate(nbytes)
        return os.dup(file.fileno())

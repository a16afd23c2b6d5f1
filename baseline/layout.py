"""How one expert's tensors are ordered and aligned in its file."""

import dataclasses
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pydantic
import yaml

from baseline.errors import UsageError

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
# `bias` is the linear layer's own; `scales` and `biases` belong to the quantised weight.
TENSORS = ("weight", "scales", "biases", "bias")
ITEM_BYTES = {"uint8": 1, "uint32": 4, "float16": 2, "bfloat16": 2, "float32": 4}
PAGE = 4096  # what the reader wants of a record: O_DIRECT on any disk in use


@dataclasses.dataclass(frozen=True)
class Layout:
    """`order` lists every tensor of an expert as `projection.tensor`; a record is padded to `align` bytes.

    Each tensor begins at a multiple of `tensor_align` bytes, at least at one of its item size.
    """

    name: str
    summary: str
    align: int
    order: tuple[str, ...]
    tensor_align: int = 1

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return dataclasses.asdict(self) | {"order": list(self.order)}

    @classmethod
    def from_json(cls, record: Any) -> "Layout":
        """The inverse of `to_json`. ValueError when `record` has another form, UsageError for what cannot be."""
        layout = pydantic.TypeAdapter(cls).validate_python(record)
        check_layout(layout)
        return layout

    def lies_as(self, other: "Layout") -> bool:
        """Whether both put every byte in the same place, whatever they are called."""
        return dataclasses.replace(self, name=other.name, summary=other.summary) == other


@dataclasses.dataclass(frozen=True)
class Segment:
    """One tensor inside one expert's record; `shape` is one expert's, `offset` and `nbytes` are in bytes."""

    projection: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def name(self) -> str:
        return f"{self.projection}.{self.tensor}"

    @property
    def end(self) -> int:
        return self.offset + self.nbytes


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def load_layout(path: Path) -> Layout:
    """Read `kernels/layouts/<name>.yaml`. Raises UsageError naming the file and what is wrong with it."""
    try:
        fields = yaml.safe_load(path.read_text())
        layout = pydantic.TypeAdapter(Layout).validate_python(fields)
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"layout {path} cannot be read: {' '.join(str(error).split())}") from None
    except pydantic.ValidationError as error:
        raise UsageError(f"layout {path}: {first_problem(error)}") from None
    if layout.name != path.stem:
        raise UsageError(f"layout {path}: name is {layout.name!r}, the file's is {path.stem!r}; they must be equal")
    try:
        check_layout(layout)
    except UsageError as error:
        raise UsageError(f"layout {path}: {error}") from None
    return layout


def first_problem(error: pydantic.ValidationError) -> str:
    """The first thing that pydantic found wrong, as `where: what`."""
    detail: Any = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"


def check_layout(layout: Layout) -> None:
    """Raise UsageError for an alignment or an order that no record can have."""
    allowed = [f"{projection}.{tensor}" for projection in PROJECTIONS for tensor in TENSORS]
    if layout.align < PAGE or not _is_power_of_two(layout.align):
        raise UsageError(f"align is {layout.align}; it must be a power of two of at least {PAGE}")
    if not (1 <= layout.tensor_align <= layout.align and _is_power_of_two(layout.tensor_align)):
        raise UsageError(f"tensor_align is {layout.tensor_align}; it must be a power of two of at most align")
    if sorted(layout.order) != sorted(allowed):
        raise UsageError(f"order must name each of these once: {', '.join(allowed)}")


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def arrange(layout: Layout, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[Segment, ...]:
    """Place one expert's tensors, given as `projection.tensor: (dtype, shape of one expert)`.

    Tensors that this model lacks are skipped. Each starts at a multiple of its item size, so that a kernel
    may read it through a typed pointer, and of the layout's `tensor_align`. Raises UsageError for a tensor that no
    layout knows.
    """
    if unknown := sorted(tensors.keys() - set(layout.order)):
        raise UsageError(f"layout {layout.name} has no place for the experts' {unknown[0]}")
    segments: list[Segment] = []
    end = 0
    for name in filter(tensors.__contains__, layout.order):
        dtype, shape = tensors[name]
        projection, tensor = name.split(".")
        offset = round_up(end, max(ITEM_BYTES[dtype], layout.tensor_align))
        segments.append(Segment(projection, tensor, dtype, shape, offset, prod(shape) * ITEM_BYTES[dtype]))
        end = segments[-1].end
    return tuple(segments)


def record_stride(layout: Layout, segments: tuple[Segment, ...]) -> int:
    """Bytes from one expert's record to the next: its end, padded to the layout's alignment."""
    return round_up(segments[-1].end, layout.align)

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
    """`order` lists every tensor of an expert as `projection.tensor`; a record is padded to `align` bytes."""

    name: str
    summary: str
    align: int
    order: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"order": list(self.order)}


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
    if wrong := _problem(layout, path.stem):
        raise UsageError(f"layout {path}: {wrong}")
    return layout


def first_problem(error: pydantic.ValidationError) -> str:
    """The first thing that pydantic found wrong, as `where: what`."""
    detail: Any = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"


def _problem(layout: Layout, stem: str) -> str | None:
    allowed = [f"{projection}.{tensor}" for projection in PROJECTIONS for tensor in TENSORS]
    if layout.name != stem:
        return f"name is {layout.name!r}, the file's is {stem!r}; they must be equal"
    if layout.align < PAGE or layout.align & (layout.align - 1):
        return f"align is {layout.align}; it must be a power of two of at least {PAGE}"
    if sorted(layout.order) != sorted(allowed):
        return f"order must name each of these once: {', '.join(allowed)}"
    return None


def arrange(layout: Layout, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[Segment, ...]:
    """Place one expert's tensors, given as `projection.tensor: (dtype, shape of one expert)`.

    Tensors that this model lacks are skipped. Each starts at a multiple of its item size, so that a kernel
    may read it through a typed pointer. Raises UsageError for a tensor that no layout knows.
    """
    if unknown := sorted(tensors.keys() - set(layout.order)):
        raise UsageError(f"layout {layout.name} has no place for the experts' {unknown[0]}")
    segments: list[Segment] = []
    end = 0
    for name in filter(tensors.__contains__, layout.order):
        dtype, shape = tensors[name]
        projection, tensor = name.split(".")
        offset = round_up(end, ITEM_BYTES[dtype])
        segments.append(Segment(projection, tensor, dtype, shape, offset, prod(shape) * ITEM_BYTES[dtype]))
        end = segments[-1].end
    return tuple(segments)


def record_stride(layout: Layout, segments: tuple[Segment, ...]) -> int:
    """Bytes from one expert's record to the next: its end, padded to the layout's alignment."""
    return round_up(segments[-1].end, layout.align)

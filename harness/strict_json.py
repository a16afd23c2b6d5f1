"""JSON as everybody reads it: it has no infinity and no nan, and null stands for them."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, indent: int | None = 1) -> str:
    """The text of a record, with a newline at its end; what is no JSON type is written as its `str`."""
    return json.dumps(finite(value), indent=indent, default=str, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """`value` with null for each infinity and nan."""
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

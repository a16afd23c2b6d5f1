"""mlx-lm's own code, read, and run with other objects behind some of the names that it uses."""

import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any


def source_of(block: type) -> str:
    """The text of a module's `__call__`; '' where it cannot be read."""
    try:
        return inspect.getsource(inspect.getattr_static(block, "__call__"))
    except (OSError, TypeError):
        return ""


def in_namespace(function: FunctionType, names: Mapping[str, Any]) -> FunctionType:
    """`function`, its code shared, with other objects behind some of the global names that it uses."""
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin

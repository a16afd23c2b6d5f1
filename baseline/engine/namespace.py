"""mlx-lm's own code, run with other objects behind some of the names that it uses."""

from collections.abc import Mapping
from types import FunctionType
from typing import Any


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

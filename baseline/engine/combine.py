"""The routing-weighted sum of a token's experts: what a block of mlx-lm makes of their products, as one kernel."""

import inspect
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import mlx.core as mx

# The experts' products, and their weighted sum as the next and only thing that is made of them.
COMBINATION = re.compile(
    r"(\w+) = self\.(\w+)\([^\n]*\)\n\s+(?:return|\1 =) \(\1 \* \w+\[\.\.\., None\]\)\.sum\(axis=-2\)"
)


def combines(block: type, experts: str) -> bool:
    """Whether the code of a block takes the weighted sum of what its module `experts` returns, and nothing else.

    Only then may it be given `Products`: MLX's functions refuse them. False where the code cannot be read.
    """
    try:
        source = inspect.getsource(inspect.getattr_static(block, "__call__"))
    except (OSError, TypeError):
        return False
    return any(found[2] == experts for found in COMBINATION.finditer(source))


class Deferred:
    """Stands for an array of this shape and dtype, which `make` makes when anything else of it is needed."""

    def __init__(self, shape: tuple[int, ...], dtype: mx.Dtype, make: Callable[[], mx.array]) -> None:
        self.shape, self.dtype, self.make = shape, dtype, make

    @cached_property
    def array(self) -> mx.array:
        """The array itself."""
        return self.make()

    def __mlx_array__(self) -> mx.array:
        return self.array

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)


def _forwarded(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **options: getattr(self.array, name)(*arguments, **options)


# Python looks operators up in the class, past __getattr__.
for _name in set(vars(mx.array)) - {"__new__", "__init__", "__getstate__", "__setstate__", "__doc__", "__module__"}:
    if _name.startswith("__"):
        setattr(Deferred, _name, _forwarded(_name))


class Products(Deferred):
    """Stands for y [..., k, H], the products of one token's k experts.

    (y * scores[..., None]).sum(axis=-2) is what `combined` makes of the scores, float32 [k]: [1, H].
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: mx.Dtype,
        make: Callable[[], mx.array],
        combined: Callable[[mx.array], mx.array],
    ) -> None:
        super().__init__(shape, dtype, make)
        self.combined = combined

    def __mul__(self, scores: Any) -> Any:
        if isinstance(scores, mx.array) and scores.shape == (*self.shape[:-1], 1):
            return WeightedProducts(self, scores)
        return self.array * scores


class WeightedProducts(Deferred):
    """Stands for products * scores [..., k, 1]."""

    def __init__(self, products: Products, scores: mx.array) -> None:
        dtype = mx.result_type(products.dtype, scores)
        super().__init__(products.shape, dtype, lambda: products.array * scores)
        self.combined: Callable[[], mx.array] = lambda: products.combined(scores.reshape(-1).astype(mx.float32))

    def sum(self, axis: Any = None, keepdims: bool = False, **options: Any) -> mx.array:
        """As `mx.array.sum`."""
        if axis != -2 or keepdims or options:
            return self.array.sum(axis, keepdims, **options)
        return self.combined().astype(self.dtype).reshape(*self.shape[:-2], self.shape[-1])

"""The routing-weighted sum of a token's experts: what a block of mlx-lm makes of their products, as one kernel."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from baseline.engine.namespace import source_of

# The experts' products, and their weighted sum as the next and only thing that is made of them.
COMBINATION = re.compile(
    r"(\w+) = self\.(\w+)\([^\n]*\)\n\s+(?:return|\1 =) \(\1 \* \w+\[\.\.\., None\]\)\.sum\(axis=-2\)"
)


def combines(block: type, experts: str) -> bool:
    """Whether the code of a block takes the weighted sum of what its module `experts` returns, and nothing else.

    Only then may it be given `Products`, which are good for nothing else. False where the code cannot be read.
    """
    return any(found[2] == experts for found in COMBINATION.finditer(source_of(block)))


@dataclass(frozen=True)
class Products:
    """Stands for y [..., k, H], the products of one token's k experts, in a block that `combines`.

    (y * scores[..., None]).sum(axis=-2) is what `combined` makes of the scores, float32 [k]: [1, H].
    """

    shape: tuple[int, ...]
    dtype: mx.Dtype
    combined: Callable[[mx.array], mx.array]

    def __mul__(self, scores: mx.array) -> "WeightedProducts":
        return WeightedProducts(self, scores)


@dataclass(frozen=True)
class WeightedProducts:
    """Stands for products * scores [..., k, 1]."""

    products: Products
    scores: mx.array

    def sum(self, axis: int) -> mx.array:
        """As `mx.array.sum`, [..., H], of MLX's type. TypeError for another axis than -2."""
        if axis != -2:
            raise TypeError(f"the products of a token's experts are summed over axis -2, not {axis}")
        shape = self.products.shape
        total = self.products.combined(self.scores.reshape(-1).astype(mx.float32))
        return total.astype(mx.result_type(self.products.dtype, self.scores)).reshape(*shape[:-2], shape[-1])

"""`CompiledBlock`: a layer's feed-forward block, whose graph for one token is built once and not for each token."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn


def is_one_token(x: mx.array) -> bool:
    """Whether x [..., H] is a single token's."""
    return x.size == x.shape[-1]


class CompiledBlock(nn.Module):
    """A block, (x [B, T, H]) -> [B, T, H], which it wraps."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.one: Callable[[mx.array], mx.array] | None = None

    def __call__(self, *arguments: Any, **options: Any) -> mx.array:
        """What the block's own call takes and gives."""
        if self.one is not None and len(arguments) == 1 and not options and is_one_token(arguments[0]):
            return self.one(arguments[0])
        y: mx.array = self.block(*arguments, **options)
        return y

    def compile(self, on: bool) -> None:
        """Build the graph of one token anew, at its next call; or leave all calls as they are."""
        self.one = mx.compile(self.block.__call__) if on else None

"""`KernelConv`: a channel's convolution over a few tokens and its silu, which one compiled kernel may take over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from baseline import native
from baseline.engine.namespace import source_of
from baseline.probe import cores
from baseline.targets import cpu


def activates(block: type, conv: str) -> bool:
    """Whether the code of a block takes nn.silu of what its module `conv` returns, and nothing else of it.

    Only then may it be given `Convolved`. False where the code cannot be read.
    """
    source = source_of(block)
    return source.count(f"self.{conv}(") == source.count(f"nn.silu(self.{conv}(") == 1


@dataclass(frozen=True)
class Convolved:
    """Stands for a convolution, in code that `activates` it."""

    silu: mx.array


class Activated:
    """Stands for mlx.nn there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)

    @staticmethod
    def silu(x: "mx.array | Convolved") -> mx.array:
        """As nn.silu."""
        return x.silu if isinstance(x, Convolved) else nn.silu(x)


class KernelConv(nn.Module):
    """An nn.Conv1d, which it wraps: x [B, T + taps - 1, C] -> [B, T, C], or `Convolved` where a kernel is set."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv
        self.kernel: native.CpuKernel | None = None
        self._taps: mx.array | None = None  # no parameter of the model: the weight, turned

    def configure(self, cache: Path | None) -> None:
        """Run on a kernel, built in a folder or taken from it; None leaves it to MLX. Raises as a build does.

        Only channels by themselves, without padding or bias, and in whole vectors, are on a kernel.
        """
        self.kernel = self._taps = None
        if cache is None or not self._fits():
            return
        taps = mx.contiguous(self.conv.weight[..., 0].T.astype(mx.float32))
        mx.eval(taps)
        self.kernel = native.CpuKernel(str(cpu.build_fixed("conv", {"TAPS": len(taps)}, cache)), "convolve", cores())
        self._taps = taps

    def _fits(self) -> bool:
        conv, (channels, _, group) = self.conv, self.conv.weight.shape
        plain = (conv.stride, conv.padding, conv.dilation, conv.groups) == (1, 0, 1, channels)
        return plain and group == 1 and channels % 16 == 0 and "bias" not in conv

    def __call__(self, x: mx.array) -> mx.array | Convolved:
        """See the class."""
        if self.kernel is None or self._taps is None or x.dtype != mx.float32:
            y: mx.array = self.conv(x)
            return y
        shape = (x.shape[0], x.shape[1] - len(self._taps) + 1, x.shape[2])
        (y,) = self.kernel([x, self._taps], [shape], [x.dtype], list(shape))
        return Convolved(y)

"""`KernelLinear`: a quantised linear layer that runs a `qmatvec` variant where one is configured."""

import mlx.core as mx
import mlx.nn as nn

from baseline import native
from baseline.contract import Instance


class KernelLinear(nn.QuantizedLinear):
    """An nn.QuantizedLinear, its parameters shared, whose product a compiled kernel may take over."""

    def __init__(self, linear: nn.QuantizedLinear) -> None:
        nn.Module.__init__(self)
        self.group_size, self.bits, self.mode = linear.group_size, linear.bits, linear.mode
        for name in ("weight", "scales", "biases", "bias"):
            if name in linear:
                self[name] = linear[name]
        self.kernel: native.CpuKernel | None = None
        self.dtype: mx.Dtype | None = None
        self.freeze()

    def configure(self, kernel: native.CpuKernel | None, dtype: mx.Dtype) -> None:
        """Set the kernel, which takes activations of dtype; None leaves the product to MLX."""
        self.kernel, self.dtype = kernel, dtype

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., K] -> [..., N]."""
        if self.kernel is None or x.dtype != self.dtype:
            return super().__call__(x)
        width = self.weight.shape[0]
        (y,) = self.kernel(
            [x, self.weight, self.scales, self.biases],
            [(*x.shape[:-1], width)],
            [x.dtype],
            [x.size // x.shape[-1]],
        )
        return y + self.bias if "bias" in self else y

    def instance(self, dtype: mx.Dtype) -> Instance | None:
        """The compile-time constants of this layer's product; None where it is not affine-quantised."""
        if self.mode != "affine":
            return None
        return {
            "N": self.weight.shape[0],
            "K": self.scales.shape[1] * self.group_size,
            "BITS": self.bits,
            "GROUP": self.group_size,
            "T": str(dtype).removeprefix("mlx.core."),
            "S": str(self.scales.dtype).removeprefix("mlx.core."),
        }

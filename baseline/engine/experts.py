"""`StreamingExperts`: the one module that is swapped in to stream a Mixture-of-Experts model from disk."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.switch_layers import SwiGLU, SwitchGLU

from baseline import native
from baseline.contract import Instance
from baseline.engine.policy import IoPolicy
from baseline.errors import UsageError
from baseline.manifest import LayerEntry

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def dense(view: mx.array) -> mx.array:
    """A view that MLX's ops take: CUDA's gather_qmm has no kernel for experts that are a record's stride apart."""
    return mx.contiguous(view) if mx.default_device() == mx.gpu and mx.cuda.is_available() else view


@cache
def one_token(k: int) -> tuple[mx.array, mx.array]:
    """The pairs of a single token's k experts, row and slot: made once, not in each layer of each token."""
    row, slot = mx.zeros(k, mx.int32), mx.arange(k, dtype=mx.int32)
    mx.eval(row, slot)
    return row, slot


class ExpertSlots:
    """A SwitchGLU whose experts are slots of a buffer of records, filled anew for each call.

    It keeps the model's own module for its mathematics (activation, modes, biases) and lends it the tensors of the
    slots, so that the outputs are those of the resident model to the last bit. It is no nn.Module, so that the model
    does not count the borrowed tensors among its parameters.
    """

    def __init__(self, glu: SwitchGLU, layer: LayerEntry) -> None:
        self.glu = glu
        self.layer = layer
        self.segments = [(getattr(mx, s.dtype), list(s.shape), s.offset) for s in layer.segments]

    def __call__(self, x: mx.array, slots: mx.array, views: Sequence[mx.array]) -> mx.array:
        """x [n, H], slots [n, k], views [s, *shape] in the order of the layer's segments -> [n, k, H]."""
        for segment, view in zip(self.layer.segments, views, strict=True):
            self.glu[segment.projection][segment.tensor] = dense(view)
        y = self.glu(x, slots)
        for segment in self.layer.segments:  # or the module would keep the buffer of this token alive
            del self.glu[segment.projection][segment.tensor]
        return y

    @property
    def width(self) -> int:
        """The experts' intermediate size I."""
        return next(s.shape[0] for s in self.layer.segments if s.projection == "gate_proj")

    def instance(self, dtype: mx.Dtype) -> Instance | None:
        """The compile-time constants of this layer's experts; None where they are not what the contracts describe."""
        quantization = {self.layer.quantization.get(projection) for projection in PROJECTIONS}
        tensors = {s.tensor for s in self.layer.segments}
        first = next(iter(quantization))
        if len(quantization) > 1 or first is None or first.mode != "affine" or "bias" in tensors:
            return None
        if type(self.glu.activation) is not SwiGLU:
            return None
        segments = {(s.projection, s.tensor): s for s in self.layer.segments}
        scales = segments["gate_proj", "scales"]
        constants: dict[str, int | str] = {
            "H": scales.shape[1] * first.group_size,
            "I": scales.shape[0],
            "BITS": first.bits,
            "GROUP": first.group_size,
            "STRIDE": self.layer.stride,
            "T": str(dtype).removeprefix("mlx.core."),
            "S": scales.dtype,
        }
        for (projection, tensor), segment in segments.items():
            constants[f"{projection.removesuffix('_proj').upper()}_{tensor.upper()}"] = segment.offset
        return constants


class StreamingExperts(nn.Module):
    """Takes the place of a SwitchGLU: (x [..., H], indices [..., k]) -> [..., k, H], with the experts on disk.

    A single token's experts are read by `expert_read` inside the graph. More tokens are grouped by expert: each
    expert that one of them needs is read once, `group` experts at a time, so that memory stays bounded.
    """

    def __init__(self, glu: SwitchGLU, layer: LayerEntry, folder: Path, index: int, group: int) -> None:
        super().__init__()
        self.slots = ExpertSlots(glu, layer)
        self.path = folder / layer.file
        self.index = index
        self.group = group
        self.gate_up: native.CpuKernel | None = None
        self.down: native.CpuKernel | None = None

    def configure(
        self, io: IoPolicy, gate_up: native.CpuKernel | None, down: native.CpuKernel | None, dtype: mx.Dtype
    ) -> None:
        """Set the I/O policy and the two kernels, which compute in dtype; None leaves the experts to MLX's own ops."""
        if (gate_up is None) != (down is None):
            raise UsageError("expert_gate_up and expert_down are configured together; got only one of them")
        layer = self.slots.layer
        self.io = io
        self.file = native.ExpertFile(str(self.path), self.index, layer.experts, layer.stride, io.cache == "direct")
        self.gate_up, self.down, self.dtype = gate_up, down, dtype

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array:
        if indices.size == indices.shape[-1]:
            y = self._single(x.reshape(1, -1), indices)
        else:
            y = self._grouped(x.reshape(-1, x.shape[-1]), indices)
        return y.reshape(*indices.shape, -1)

    def _single(self, x: mx.array, indices: mx.array) -> mx.array:
        if self.io.schedule == "eager":
            mx.eval(indices)
        row, slot = one_token(indices.size)
        return self._apply(x, row, indices.reshape(-1), slot)

    def _grouped(self, x: mx.array, indices: mx.array) -> mx.array:
        mx.eval(indices)  # numpy would drop the exception of a failed read
        chosen = np.array(indices).reshape(-1)
        experts = np.unique(chosen)
        parts, order = [], []
        for start in range(0, len(experts), self.group):
            members = experts[start : start + self.group]
            pairs = np.flatnonzero((chosen >= members[0]) & (chosen <= members[-1]))
            pairs = pairs[np.argsort(chosen[pairs], kind="stable")]
            rows = (pairs // indices.shape[-1]).astype(np.int32)
            slots = np.searchsorted(members, chosen[pairs]).astype(np.int32)
            y = self._apply(x, mx.array(rows), mx.array(members), mx.array(slots))
            mx.eval(y)  # frees this group's buffer before the next group is read
            parts.append(y)
            order.append(pairs)
        return mx.concatenate(parts)[mx.array(np.argsort(np.concatenate(order)))]

    def _apply(self, x: mx.array, row: mx.array, experts: mx.array, slot: mx.array) -> mx.array:
        """Pair p is row[p] of x [r, H] times the expert experts[slot[p]] -> [p, H]."""
        kernels = x.dtype == self.dtype
        views = [] if self.gate_up and kernels else self.slots.segments
        records, *tensors = native.expert_read(self.file, experts, views, self.io.threads, self.io.reads_per_expert)
        if self.io.schedule == "eager":
            mx.eval(records)
        if self.gate_up is None or self.down is None or not kernels:
            if x.shape[0] == 1:
                return self.slots(x, slot[None], tensors)
            return self.slots(x[row], slot[:, None], tensors)
        pairs, width = slot.size, self.slots.width
        dims = [x.shape[0], experts.size, pairs]
        (h,) = self.gate_up([x, records, row, slot], [(pairs, width)], [x.dtype], dims)
        (y,) = self.down([h, records, slot], [(pairs, x.shape[1])], [x.dtype], [pairs, experts.size])
        return y

"""`StreamingExperts`: the one module that is swapped in to stream a Mixture-of-Experts model from disk."""

import threading
from collections.abc import Sequence
from functools import cache, partial
from math import prod
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.switch_layers import SwiGLU, SwitchGLU

from baseline import native
from baseline.contract import Instance
from baseline.engine.combine import Products
from baseline.engine.kernels import Kernel
from baseline.errors import UsageError
from baseline.manifest import LayerEntry
from baseline.policy import IoPolicy, caches

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def dense(view: mx.array) -> mx.array:
    """A view that MLX's ops take: CUDA's gather_qmm has no kernel for experts that are a record's stride apart."""
    return mx.contiguous(view) if mx.default_device() == mx.gpu and mx.cuda.is_available() else view


class ReadStream(threading.local):
    """The stream of a thread's reads: MLX takes a stream only from the thread that made it."""

    def __init__(self) -> None:
        self.stream = mx.new_stream(mx.cpu)


@cache
def read_stream() -> ReadStream:
    """Made at first use: a stream is a thread."""
    return ReadStream()


@cache
def one_token(k: int) -> tuple[mx.array, mx.array]:
    """The pairs of a single token's k experts, row and slot: made once, not in each layer of each token."""
    row, slot = mx.zeros(k, mx.int32), mx.arange(k, dtype=mx.int32)
    mx.eval(row, slot)
    return row, slot


def weighted_sums(
    kernel: Kernel, shape: Sequence[int], h: mx.array, records: mx.array, slot: mx.array, weight: mx.array
) -> mx.array:
    """expert_down: h [p, I] of p pairs, records [s, STRIDE / 4], slot and weight [p] -> shape, [p / TOP, H]."""
    (y,) = kernel([h, records, slot, weight], [shape], [h.dtype], [slot.size, records.shape[0]])
    return y


def mapped_experts(file: native.ExpertFile) -> native.MappedExperts:
    """All records of a file, in the page cache. RuntimeError where it is too short; UsageError beside a GPU."""
    if "mapped" not in caches():
        raise UsageError("io.cache=mapped is for MLX's CPU build, and this one has a GPU; io.cache=os works everywhere")
    return native.MappedExperts(file)


def segment_view(records: mx.array, dtype: mx.Dtype, shape: Sequence[int], offset: int) -> mx.array:
    """A tensor of all records [s, STRIDE / 4], `offset` bytes into each: [s, *shape]."""
    elements = records.view(dtype)
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    return mx.as_strided(elements, (len(records), *shape), (elements.shape[1], *strides), offset // dtype.size)


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

    def outputs(self, projection: str) -> int:
        """The width of what a projection gives: I of gate_proj, H of down_proj."""
        return next(s.shape[0] for s in self.layer.segments if s.projection == projection)

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

    `combined` is the number of experts a token uses where the block takes the weighted sum of what this returns and
    nothing else (baseline.engine.combine.combines), and 0 elsewhere: with kernels, a single token then gets `Products`.
    """

    def __init__(
        self, glu: SwitchGLU, layer: LayerEntry, folder: Path, index: int, group: int, combined: int = 0
    ) -> None:
        super().__init__()
        self.slots = ExpertSlots(glu, layer)
        self.path = folder / layer.file
        self.index = index
        self.group = group
        self.combined = combined
        self.gate_up: Kernel | None = None
        self.down: Kernel | None = None
        self.down_combined: Kernel | None = None

    def down_instances(self, dtype: mx.Dtype) -> tuple[Instance | None, Instance | None]:
        """The constants of expert_down for each pair by itself, and for a token's weighted sum where that is wanted."""
        instance = self.slots.instance(dtype)
        if instance is None:
            return None, None
        return {**instance, "TOP": 1}, {**instance, "TOP": self.combined} if self.combined else None

    def configure(
        self,
        io: IoPolicy,
        gate_up: Kernel | None,
        down: Kernel | None,
        down_combined: Kernel | None,
        dtype: mx.Dtype,
    ) -> None:
        """Set the I/O policy and the kernels, which compute in dtype; None leaves the experts to MLX's own ops.

        `down` and `down_combined` are those of the two `down_instances`; the latter can be None by itself.
        """
        if (gate_up is None) != (down is None):
            raise UsageError("expert_gate_up and expert_down are configured together; got only one of them")
        layer = self.slots.layer
        self.io = io
        self.uring = io.uring(native.uring_available())
        self.file = native.ExpertFile(str(self.path), self.index, layer.experts, layer.stride, io.cache == "direct")
        self.mapped = mapped_experts(self.file) if io.cache == "mapped" else None
        self.prefetch = None
        if io.prefetch == "previous" and self.mapped is None:
            self.prefetch = native.Prefetch(self.file, io.threads, io.reads_per_expert, self.uring)
        self.gate_up, self.down, self.down_combined, self.dtype = gate_up, down, down_combined, dtype

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array | Products:
        if indices.size == indices.shape[-1]:
            return self._single(x.reshape(1, -1), indices)
        return self._grouped(x.reshape(-1, x.shape[-1]), indices).reshape(*indices.shape, -1)

    def _single(self, x: mx.array, indices: mx.array) -> mx.array | Products:
        if self.io.schedule == "eager":
            mx.eval(indices)
        experts, shape = indices.reshape(-1), (*indices.shape, x.shape[-1])
        row, slot = one_token(indices.size)
        if self.down_combined is None or x.dtype != self.dtype or indices.size != self.combined:
            return self._apply(x, row, experts, slot).reshape(shape)
        h, records, slot = self._hidden(x, row, experts, slot)
        combined = partial(weighted_sums, self.down_combined, (1, shape[-1]), h, records, slot)
        return Products(shape, x.dtype, combined)

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
        if self.down is not None and x.dtype == self.dtype:
            return self._products(*self._hidden(x, row, experts, slot))
        _, tensors, slot = self._read(experts, self.slots.segments, slot)
        if x.shape[0] == 1:
            return self.slots(x, slot[None], tensors)
        return self.slots(x[row], slot[:, None], tensors)

    def _read(
        self, experts: mx.array, segments: Sequence[tuple[mx.Dtype, list[int], int]], slot: mx.array
    ) -> tuple[mx.array, list[mx.array], mx.array]:
        """The experts' records [s, STRIDE / 4], their segments, and the record of each pair.

        That is `slot`, except where a prefetch places a single token's experts, whose pair p is experts[p], and where
        the records are all of the layer's.
        """
        if self.mapped is not None:
            return self._map(self.mapped, experts, segments, slot)
        prefetch = self.prefetch if slot is one_token(slot.size)[1] else None
        stream = read_stream().stream if self.io.stream == "own" else None
        records, *found = native.expert_read(
            self.file, experts, segments, self.io.threads, self.io.reads_per_expert, self.uring, prefetch, stream
        )
        if self.io.schedule == "eager":
            mx.eval(records)
        return records, found[: len(segments)], found[-1] if prefetch else slot

    def _map(
        self,
        mapped: native.MappedExperts,
        experts: mx.array,
        segments: Sequence[tuple[mx.Dtype, list[int], int]],
        slot: mx.array,
    ) -> tuple[mx.array, list[mx.array], mx.array]:
        """As `_read`, where the page cache holds them; views of all experts cost nothing."""
        stream = read_stream().stream if self.io.stream == "own" else None
        present = native.expert_map(mapped, experts, self.io.threads, stream)
        if self.io.schedule == "eager":
            mx.eval(present)
        single = slot is one_token(slot.size)[1]
        views = [segment_view(mapped.records, *segment) for segment in segments]
        return mapped.records, views, present if single else present[slot]

    def _hidden(
        self, x: mx.array, row: mx.array, experts: mx.array, slot: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        """With kernels: the pairs' activations h [p, I], the experts' records [s, STRIDE / 4], each pair's record."""
        assert self.gate_up is not None
        records, _, slot = self._read(experts, [], slot)
        shape, dims = (slot.size, self.slots.outputs("gate_proj")), [x.shape[0], records.shape[0], slot.size]
        (h,) = self.gate_up([x, records, row, slot], [shape], [x.dtype], dims)
        return h, records, slot

    def _products(self, h: mx.array, records: mx.array, slot: mx.array) -> mx.array:
        """With kernels: each pair's own output, [p, H]."""
        assert self.down is not None
        shape = (slot.size, self.slots.outputs("down_proj"))
        return weighted_sums(self.down, shape, h, records, slot, mx.ones(slot.size))

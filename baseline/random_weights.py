"""Random weights under which a quantised Qwen3.5 model computes finite numbers and routes as real ones do.

A quantised matrix has uniformly random words; its scales, which differ from group to group, give it a standard
deviation of 1 / sqrt(inputs), its biases a mean of zero. What a layer adds to the residual stream is smaller by
sqrt(2 * layers), so that the stream neither grows nor forgets its embedding.

Routing has a locality: Flash-MoE measured on the 397B at K = 4 that 25 to 27 % of a token's experts were those of the
token before, and that 8 % of the experts served half of the accesses. Every embedding has a component along a
direction common to all; a router row's component along it is its expert's popularity, the same for every token, and
what is left of the row is the token's own choice. The direction is constant within each group, and so lies in the
groups' biases alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import xxhash
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from baseline.checkpoint import tensor_bytes
from baseline.shapes import GROUP, Shape

PIECE = 4 << 20  # bytes of words that are in memory at once; an eighth as many scales
SCALES = 256  # different scales of one tensor: a random byte picks a group's
OVERLAP, K = 0.25, 4  # the measured locality, and the K at which it was measured
# Of the popularities, in standard deviations of the token's own choice: 8 % of 512 experts serve half of the accesses.
SPREAD = 0.33
COMMON = 0.25  # the embeddings' component along the common direction; they have a standard deviation of 1
CHOICE = 0.5  # standard deviation of a router's logits over the tokens: no expert takes nearly all the weight

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class RandomWeights:
    """The tensors of a model of `shape`, whose config.json has `quantization`, from `seed`."""

    shape: Shape
    quantization: dict[str, Any]
    seed: int

    def pieces(self, name: str, array: mx.array) -> Iterator[memoryview]:
        """The bytes of the tensor `name` in pieces of a few MiB; `array` gives its shape and dtype, never evaluated.

        They depend on the seed, the name and the shape of the model, and on nothing that came before.
        """
        module, _, kind = name.rpartition(".")
        if array.dtype == mx.uint32:
            return self._words(name, array.nbytes)
        if kind in ("scales", "biases"):
            return self._affine(module, kind, array)
        return iter([tensor_bytes(mx.array(self._dense(name, array.shape)).astype(array.dtype))])

    def _stream(self, name: str) -> np.random.SFC64:
        return np.random.SFC64([self.seed, xxhash.xxh3_64_intdigest(name.encode())])

    def _words(self, name: str, nbytes: int) -> Iterator[memoryview]:
        stream = self._stream(name)
        for start in range(0, nbytes, PIECE):
            size = min(PIECE, nbytes - start)
            words: Any = stream.random_raw((size + 7) // 8)
            yield memoryview(words).cast("B")[:size]

    def _affine(self, module: str, kind: str, array: mx.array) -> Iterator[memoryview]:
        """Scales or biases: both look up the same random bytes, so that bias = -scale * (2^bits - 1) / 2."""
        groups = array.shape[-1]
        table = self._table(module, kind, groups * GROUP)
        words = np.array(table.view(mx.uint16))  # numpy has no bfloat16
        rows = array.size // groups
        along = self._along(module, rows) if kind == "biases" else None
        stream = self._stream(f"{module}.scales")
        step = max(PIECE // (8 * groups), 1)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), groups)
            drawn: Any = stream.random_raw((shape[0] * groups + 7) // 8)
            index = drawn.view(np.uint8)[: shape[0] * groups].reshape(shape)
            if along is None:
                yield memoryview(words[index]).cast("B")
            else:
                common = along[start : start + shape[0], None] * self._direction(groups)
                yield tensor_bytes((table[mx.array(index)] + mx.array(common)).astype(mx.bfloat16))

    def _table(self, module: str, kind: str, inputs: int) -> mx.array:
        """The SCALES scales that occur in a matrix, or the bias of each, in bfloat16.

        With them its weights have the standard deviation wanted.
        """
        bits = self.quantization.get(module, self.quantization)["bits"]
        levels = 2**bits
        spread = np.linspace(0.5, 1.5, SCALES)
        unit = np.sqrt((levels**2 - 1) / 12 * np.mean(spread**2))
        scales = mx.array(spread * self._deviation(module, inputs) / unit, mx.float32).astype(mx.bfloat16)
        return scales if kind == "scales" else scales * (-(levels - 1) / 2)

    def _deviation(self, module: str, inputs: int) -> float:
        if module.endswith("embed_tokens"):
            return float(np.sqrt(1 - COMMON**2))
        if module.endswith(("o_proj", "out_proj", "down_proj")):
            return float(1 / np.sqrt(2 * self.shape.layers * inputs))
        return float((CHOICE if module.endswith("mlp.gate") else 1) / np.sqrt(inputs))

    def _along(self, module: str, rows: int) -> Floats | None:
        """Each row's component along the common direction; None for a matrix that has none."""
        if module.endswith("embed_tokens"):
            return np.full(rows, COMMON, np.float32)
        if not module.endswith("mlp.gate"):
            return None
        # A normalised activation times the direction is COMMON * hidden.
        order = np.random.Generator(self._stream(f"{module}.popularity")).permutation(rows)
        logits: Floats = CHOICE * self._popularity[order] / (COMMON * self.shape.dims.hidden)
        return logits.astype(np.float32)

    @cached_property
    def _popularity(self) -> Floats:
        return popularity(self.shape.experts)

    def _direction(self, groups: int) -> Floats:
        signs = np.random.Generator(self._stream("direction")).integers(0, 2, groups)
        return (2 * signs - 1).astype(np.float32)

    def _dense(self, name: str, shape: tuple[int, ...]) -> Floats:
        normal = np.random.Generator(self._stream(name)).standard_normal(shape, np.float32)
        if name.endswith("conv1d.weight"):
            normal /= shape[1] ** 0.5
            return normal
        if name.endswith("A_log"):  # a head forgets within one token to a hundred
            return normal - np.float32(2)
        if name.endswith("dt_bias"):
            return normal
        return np.float32(1) + normal / np.float32(10)  # the weight of a norm


def popularity(experts: int) -> Floats:
    """The experts' mean logits in ascending order, in standard deviations of a token's own choice.

    They are normally distributed, but for one expert that many tokens use: its logit is such that OVERLAP of the K
    experts of a token are expected among those of an independent one. Fewer than 16 experts overlap by more anyway.
    """
    logits: Any = SPREAD * ndtri((np.arange(experts) + 0.5) / experts)

    def excess(first: float) -> float:
        return overlap(np.append(logits[:-1], first)) - OVERLAP

    if excess(logits[-1]) < 0:
        logits[-1] = brentq(excess, logits[-1], 12)
    return logits.astype(np.float32)


def overlap(logits: Floats) -> float:
    """The expected share of a token's K experts that another token uses, both with unit normal noise on `logits`."""

    def used(threshold: float) -> Any:
        return ndtr(logits - threshold)

    threshold = brentq(lambda t: used(t).sum() - K, logits.min() - 12, logits.max() + 12)
    return float((used(threshold) ** 2).sum() / K)

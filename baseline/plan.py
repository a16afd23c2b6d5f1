"""What goes where when a checkpoint is packed: experts in records, a file a layer; the rest resident."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchGLU
from mlx_lm.utils import load_config, load_model

from baseline.checkpoint import StoredTensor, dtype_name, read_checkpoint, read_into
from baseline.errors import UsageError
from baseline.layout import PROJECTIONS, Layout, arrange, record_stride
from baseline.manifest import LayerEntry, Quantization


@dataclass(frozen=True)
class Plan:
    """`layers` have no checksums yet; `resident` are lazy arrays by mlx-lm's names; `quantization` is of the
    resident modules; `stored` are the checkpoint's tensors."""

    layers: tuple[LayerEntry, ...]
    resident: dict[str, mx.array]
    quantization: dict[str, Quantization]
    stored: dict[str, StoredTensor]

    @property
    def expert_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    @property
    def resident_bytes(self) -> int:
        return sum(array.nbytes for array in self.resident.values())


def make_plan(src: Path, layout: Layout) -> Plan:
    """Let mlx-lm build the model, lazily, and place every SwitchGLU's tensors. Reads no weights.

    Raises UsageError when `src` is not an MLX checkpoint of a model with SwitchGLU experts.
    """
    stored = read_checkpoint(src)
    model = _load_lazily(src)
    modules = dict(model.named_modules())
    experts = sorted((path for path, module in modules.items() if isinstance(module, SwitchGLU)), key=_natural)
    if not experts:
        model_type = load_config(src)["model_type"]
        raise UsageError(f"{src} is a {model_type!r} model without SwitchGLU experts: there is nothing to stream")
    prefixes = tuple(f"{path}." for path in experts)
    resident = {name: array for name, array in tree_flatten(model.parameters()) if not name.startswith(prefixes)}
    quantization = {
        path: quantized
        for path, module in modules.items()
        if not path.startswith(prefixes) and (quantized := _quantization(module))
    }
    layers = tuple(_layer(i, path, modules[path], layout, stored) for i, path in enumerate(experts))
    return Plan(layers, dict(sorted(resident.items())), quantization, stored)


def _load_lazily(src: Path) -> nn.Module:
    try:
        model, _ = load_model(src, lazy=True)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"mlx-lm cannot load {src}: {reason[:200]}") from None
    return model


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort key that puts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _quantization(module: nn.Module) -> Quantization | None:
    if "scales" not in module or not hasattr(module, "bits"):
        return None
    return Quantization(module.group_size, module.bits, module.mode)


def _layer(index: int, path: str, module: nn.Module, layout: Layout, stored: Mapping[str, StoredTensor]) -> LayerEntry:
    arrays = dict(tree_flatten(module.parameters()))
    for name, array in arrays.items():
        _check_stored(f"{path}.{name}", array, stored)
    tensors = {name: (dtype_name(array), tuple(array.shape[1:])) for name, array in arrays.items()}
    segments = arrange(layout, tensors)
    return LayerEntry(
        path=path,
        file=f"experts/layer_{index:02d}.bin",
        experts=arrays["gate_proj.weight"].shape[0],
        stride=record_stride(layout, segments),
        segments=segments,
        quantization={name: q for name in PROJECTIONS if (q := _quantization(module[name]))},
        checksums=(),
    )


def _check_stored(name: str, array: mx.array, stored: Mapping[str, StoredTensor]) -> None:
    """Experts are copied byte for byte, so mlx-lm must use them as they lie in the checkpoint."""
    tensor = stored.get(name)
    if tensor is None or (tensor.dtype, tensor.shape) != (dtype_name(array), tuple(array.shape)):
        raise UsageError(
            f"not an MLX checkpoint: {name} is not stored as mlx-lm uses it; "
            "convert it first: python -m mlx_lm convert --hf-path SRC --mlx-path DST -q"
        )


class ExpertSource:
    """Reads single experts out of a checkpoint's stacked tensors, in constant memory. A context manager."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored
        self._open: dict[Path, BinaryIO] = {}

    def __enter__(self) -> "ExpertSource":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for stream in self._open.values():
            stream.close()

    def records(self, layer: LayerEntry) -> Iterator[memoryview]:
        """Each expert's record in turn, `stride` bytes, zeros between and after its segments.

        The buffer is reused: a record is valid until the next one is asked for.
        """
        record = memoryview(bytearray(layer.stride))
        for expert in range(layer.experts):
            for segment in layer.segments:
                tensor = self._stored[f"{layer.path}.{segment.name}"]
                offset = tensor.offset + expert * segment.nbytes
                read_into(self._descriptor(tensor.file), record[segment.offset : segment.end], offset, tensor.file)
            yield record

    def _descriptor(self, file: Path) -> int:
        if file not in self._open:
            self._open[file] = file.open("rb")
        return self._open[file].fileno()

"""mlx-lm models: the resident one as mlx-lm loads it, and the streamed one without its experts in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import SwitchGLU
from mlx_lm.utils import _get_classes, load_config, load_model, load_tokenizer

from baseline import native
from baseline.engine.attention import KernelAttention, is_attention
from baseline.engine.combine import combines
from baseline.engine.compiled import CompiledBlock
from baseline.engine.delta import KernelDelta, is_delta_net
from baseline.engine.experts import StreamingExperts
from baseline.engine.linear import KernelLinear
from baseline.errors import UsageError
from baseline.manifest import Manifest

# What mlx-lm's families call the number of experts that a token uses.
TOP_K_NAMES = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


def load_resident(checkpoint: Path, dtype: str | None = "float32", top_k: int | None = None) -> tuple[nn.Module, Any]:
    """The unmodified mlx-lm model, all of it in memory, and its tokenizer.

    dtype is that of the activations, scales and unquantised weights; None keeps the checkpoint's. top_k, where given,
    is the number of experts a token uses.
    """
    config = override_top_k(load_config(checkpoint), top_k)
    model, _ = load_model(checkpoint, lazy=True, model_config=config)
    set_dtype(model, dtype)
    mx.eval(model.parameters())
    return model, load_tokenizer(checkpoint)


def load_streamed(
    folder: Path, manifest: Manifest, dtype: str | None = "float32", top_k: int | None = None
) -> nn.Module:
    """The mlx-lm model of a packed folder, its modules swapped for those that stream and take kernels.

    StreamingExperts stand in place of SwitchGLU, KernelLinear of QuantizedLinear, KernelDelta of gated delta-nets,
    KernelAttention of attention, CompiledBlock of the blocks that hold the experts.
    """
    config = override_top_k(load_config(folder), top_k)
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    quantize(model, manifest)
    stream_experts(model, folder, manifest, experts_per_token(config))
    model.load_weights(str(folder / manifest.resident.file), strict=True)
    # float32 takes in every other type; float16 with bfloat16 scales would give float32.
    set_dtype(model, dtype, as_stored if dtype == "float32" else None)
    swap(model, {path: KernelLinear(m) for path, m in model.named_modules() if type(m) is nn.QuantizedLinear})
    swap(model, {path: KernelDelta(m) for path, m in model.named_modules() if is_delta_net(m)})
    swap(model, {path: KernelAttention(m) for path, m in model.named_modules() if is_attention(m)})
    every = dict(model.named_modules())
    blocks = {layer.path.rpartition(".")[0] for layer in manifest.layers}
    swap(model, {path: CompiledBlock(every[path]) for path in blocks})
    model.eval()
    mx.eval(model.parameters())
    for _, weights in tree_flatten(model.parameters()):
        native.use_huge_pages(weights)
    return model


Kept = Callable[[nn.Module, str], bool]


def set_dtype(model: nn.Module, dtype: str | None, kept: Kept | None = None) -> None:
    """Cast the model's floating-point parameters but for those that are `kept`; None leaves the checkpoint's."""
    if dtype is None:
        return

    def is_cast(module: nn.Module, name: str, value: Any) -> bool:
        return bool(nn.Module.valid_parameter_filter(module, name, value)) and not (kept and kept(module, name))

    def cast(array: mx.array) -> mx.array:
        return array.astype(getattr(mx, dtype)) if mx.issubdtype(array.dtype, mx.floating) else array

    model.apply(cast, is_cast)


def as_stored(module: nn.Module, name: str) -> bool:
    """Whether a product takes this tensor in the checkpoint's own type: each of its bytes is read for every token."""
    return type(module) is nn.QuantizedLinear and name in ("scales", "biases")


def quantize(model: nn.Module, manifest: Manifest) -> None:
    """Give every quantised module of `model`, experts included, the bits that the manifest says."""
    quantization = dict(manifest.quantization)
    for layer in manifest.layers:
        quantization |= {f"{layer.path}.{name}": q for name, q in layer.quantization.items()}

    def parameters(path: str, _: nn.Module) -> dict[str, Any] | bool:
        q = quantization.get(path)
        return {"group_size": q.group_size, "bits": q.bits, "mode": q.mode} if q else False

    nn.quantize(model, class_predicate=parameters)


def stream_experts(model: nn.Module, folder: Path, manifest: Manifest, top_k: int) -> None:
    """Swap each SwitchGLU for a StreamingExperts on its packed file; top_k is the number of experts a token uses."""
    every = dict(model.named_modules())
    modules = {path: m for path, m in every.items() if isinstance(m, SwitchGLU)}
    if set(modules) != {layer.path for layer in manifest.layers}:
        raise UsageError(f"{folder}: the manifest's layers are not those of the model that config.json describes")
    streamed: dict[str, nn.Module] = {}
    for index, layer in enumerate(manifest.layers):
        block, _, name = layer.path.rpartition(".")
        combined = top_k if combines(type(every[block]), name) else 0
        glu, group = strip(modules[layer.path]), len(manifest.layers) * top_k
        streamed[layer.path] = StreamingExperts(glu, layer, folder, index, group, combined)
    swap(model, streamed)


def strip(glu: SwitchGLU) -> SwitchGLU:
    """Drop the expert tensors of a SwitchGLU; what is left is its mathematics."""
    for projection in ("gate_proj", "up_proj", "down_proj"):
        for tensor in ("weight", "scales", "biases", "bias"):
            glu[projection].pop(tensor, None)
    return glu


def swap(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Replace the modules at the given paths."""
    model.update_modules(tree_unflatten(list(modules.items())))


def override_top_k(config: dict[str, Any], top_k: int | None) -> dict[str, Any]:
    """`config` with another number of experts a token; each family's router weighs fewer as it weighs its own K."""
    if top_k is None:
        return config
    for section in (config, config.get("text_config", {})):
        for name in TOP_K_NAMES:
            if name in section:
                if not 1 <= top_k <= section[name]:
                    raise UsageError(f"top_k must be from 1 to the model's {section[name]}, got {top_k}")
                section[name] = top_k
                return config
    raise UsageError(f"top_k cannot be changed: the model's config has none of {', '.join(TOP_K_NAMES)}")


def experts_per_token(config: dict[str, Any]) -> int:
    """The number of experts a token uses; 8 where the family's config does not say."""
    sections = (config, config.get("text_config", {}))
    return next((s[name] for s in sections for name in TOP_K_NAMES if isinstance(s.get(name), int)), 8)

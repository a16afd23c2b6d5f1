"""The Qwen3.5 Mixture-of-Experts family: each model's dimensions, whole or as a slice, as mlx-lm's classes build it."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map_with_path
from mlx_lm.models import qwen3_5_moe
from mlx_lm.utils import quantize_model

from baseline.errors import UsageError

BITS, GROUP = 4, 64
FULL_ATTENTION_INTERVAL = 4  # the other layers are gated delta-nets; mlx-lm needs at least one of each


@dataclass(frozen=True)
class Model:
    """The dimensions in which the family's models differ."""

    hidden: int
    layers: int
    attention_heads: int
    value_heads: int  # of a gated delta-net
    experts: int
    top_k: int
    intermediate: int  # of an expert, the shared one included
    vocab: int = 248_320


MODELS = {
    "qwen3.5-397b-a17b": Model(4096, 60, 32, 64, 512, 10, 1024),
    "qwen3.5-122b-a10b": Model(3072, 48, 32, 64, 256, 8, 1024),
    "qwen3.5-35b-a3b": Model(2048, 40, 16, 32, 256, 8, 512),
}


@dataclass(frozen=True)
class Shape:
    """One of MODELS with so many layers, experts and vocabulary entries."""

    model: str
    layers: int
    experts: int
    vocab: int

    @property
    def dims(self) -> Model:
        return MODELS[self.model]


def make_shape(
    model: str,
    layers: int | None = None,
    experts: int | None = None,
    vocab: int | None = None,
    least_vocab: int = 1,
) -> Shape:
    """The shape of `model`; None is the whole of it. UsageError names what is out of range.

    `least_vocab` is the number of ids of the tokenizer that the checkpoint is to have.
    """
    if model not in MODELS:
        raise UsageError(f"CONFIG must be one of {', '.join(MODELS)}, got {model!r}")
    whole = MODELS[model]
    return Shape(
        model,
        _within("layers", layers, FULL_ATTENTION_INTERVAL, whole.layers, "every fourth has full attention"),
        _within("experts", experts, whole.top_k, whole.experts, f"a token uses {whole.top_k}"),
        _within("vocab", vocab, least_vocab, whole.vocab, f"the bundled tokenizer has {least_vocab} ids"),
    )


def _within(name: str, value: int | None, least: int, most: int, why: str) -> int:
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} must be from {least} ({why}) to the model's {most}, got {value}")
    return most if value is None else value


def build(shape: Shape, special: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """mlx-lm's own model, as its own conversion casts and quantises it, and the config.json to go with it.

    All arrays are lazy: they have names, shapes and dtypes, and evaluating none takes no memory. `special` are the
    ids of the tokenizer's special tokens, as in generation_config.json.
    """
    config = _config(shape, special)
    model = qwen3_5_moe.Model(qwen3_5_moe.ModelArgs.from_dict(config))
    keep = model.language_model.cast_predicate
    cast = tree_map_with_path(lambda k, v: v.astype(mx.bfloat16) if keep(k) else v, model.parameters())
    model.update(cast)
    with redirect_stdout(io.StringIO()):  # it prints the bits per weight
        return quantize_model(model, config, GROUP, BITS)


def _config(shape: Shape, special: dict[str, Any]) -> dict[str, Any]:
    dims = shape.dims
    full = [(i + 1) % FULL_ATTENTION_INTERVAL == 0 for i in range(shape.layers)]
    text = {
        "model_type": "qwen3_5_moe_text",
        "attention_bias": False,
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "full_attention_interval": FULL_ATTENTION_INTERVAL,
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": dims.hidden,
        "layer_types": ["full_attention" if is_full else "linear_attention" for is_full in full],
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": dims.value_heads,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262_144,
        "moe_intermediate_size": dims.intermediate,
        "norm_topk_prob": True,
        "num_attention_heads": dims.attention_heads,
        "num_experts": shape.experts,
        "num_experts_per_tok": dims.top_k,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10_000_000,
            "rope_type": "default",
        },
        "shared_expert_intermediate_size": dims.intermediate,
        "tie_word_embeddings": False,
        "vocab_size": shape.vocab,
    }
    return {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "tie_word_embeddings": False,
        **special,
    }

"""Random Mixture-of-Experts checkpoints that mlx-lm loads: small, seeded, built from mlx-lm's own classes."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import quantize_model, save_config, save_model

GPU = mx.metal.is_available() or mx.cuda.is_available()  # whether MLX is a build for one, and there is one
TINY_MOE = Path(__file__).parent.parent / "baseline" / "models" / "tiny-moe"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")

# Every input dimension is a multiple of 128, or mlx-lm would leave that layer unquantised at group size 128.
# The vocabulary is that of the bundled tokenizer, which each checkpoint gets a copy of.
DIMS = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 128,
    "vocab_size": 4992,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}


def qwen3_moe(dims: dict[str, Any]) -> dict[str, Any]:
    extra = {"intermediate_size": 256, "decoder_sparse_step": 1, "mlp_only_layers": []}
    return {"model_type": "qwen3_moe", **extra, **dims}


def olmoe(dims: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "olmoe", "intermediate_size": dims["moe_intermediate_size"], **dims}


def qwen3_5_moe(dims: dict[str, Any]) -> dict[str, Any]:
    """As in the real family every fourth layer is full attention, the others are GatedDeltaNet."""
    text = {
        "model_type": "qwen3_5_moe_text",
        "shared_expert_intermediate_size": dims["moe_intermediate_size"],
        "full_attention_interval": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "rope_parameters": {
            "type": "default",
            "rope_theta": dims["rope_theta"],
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
        },
    }
    return {"model_type": "qwen3_5_moe", "text_config": {**text, **dims}}


FAMILIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "qwen3_moe": qwen3_moe,
    "olmoe": olmoe,
    "qwen3_5_moe": qwen3_5_moe,
}


def make_checkpoint(
    folder: Path,
    family: str = "qwen3_moe",
    bits: int | None = 4,
    group_size: int = 64,
    seed: int = 0,
    **dims: Any,
) -> Path:
    """Write a random checkpoint with bfloat16 weights and scales into `folder` and return it.

    `bits=None` leaves every weight in bfloat16. mlx-lm's own predicate applies: where the family has one,
    the router and the shared-expert gate get 8 bits. `dims` override DIMS and any other key of the config.
    """
    config = FAMILIES[family](DIMS | dims)
    architecture = importlib.import_module(f"mlx_lm.models.{family}")
    mx.random.seed(seed)
    model = architecture.Model(architecture.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    if bits is not None:
        model, config = quantize_model(model, config, group_size, bits)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    for name in TOKENIZER_FILES:
        shutil.copyfile(TINY_MOE / name, folder / name)
    return folder

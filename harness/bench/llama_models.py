"""The models that are made for llama.cpp, as tensors and hyperparameters: a dense one, and one shaped as a checkpoint.

Their weights are random, 4.5 bits each (Q4_0), as many as MLX's 4 bits in groups of 64 with a scale and a bias take.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

BLOCK, BLOCK_BYTES = 32, 18  # Q4_0: a half-precision scale, then 32 values of 4 bits
CONTEXT = 256
FAMILY = "qwen3_5_moe"


class Fill(Enum):
    """What a tensor holds. All but QUANTISED are of float32."""

    QUANTISED = "random 4-bit values under one small scale"
    NORMAL = "random, with a standard deviation of 1 / sqrt(its last dimension)"
    ONES = "ones"
    MINUS_ONES = "minus ones"


@dataclass(frozen=True)
class Tensor:
    """`shape` is in numpy's order, the inputs last. A token reads the share `used` of it, of 0 to 1."""

    name: str
    shape: tuple[int, ...]
    fill: Fill = Fill.QUANTISED
    used: float = 1.0
    routed: bool = False  # the weights of all experts of a layer

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        count = math.prod(self.shape)
        return count // BLOCK * BLOCK_BYTES if self.fill is Fill.QUANTISED else count * 4


@dataclass(frozen=True)
class Model:
    """`architecture`: llama.cpp's name for it. `hyperparameters`: by the name under which gguf's writer adds them."""

    architecture: str
    hyperparameters: Mapping[str, Any]
    tensors: Sequence[Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def touched(self) -> int:
        """Bytes of weights that a token reads."""
        return sum(int(tensor.nbytes * tensor.used) for tensor in self.tensors)

    @property
    def touched_experts(self) -> int:
        """Those of them that are of routed experts."""
        return sum(int(tensor.nbytes * tensor.used) for tensor in self.tensors if tensor.routed)


@dataclass(frozen=True)
class Touched:
    """Bytes of a token: of all weights that it reads, of the routed experts' alone, and read from the disk for those
    when all are missing (the mean so far)."""

    architecture: str
    weights: int
    experts: int
    disk: float


def dense() -> Model:
    """A Llama of 6 layers with the 397B's hidden size: 0.7 GB."""
    hidden, inner, layers, heads, kv_heads, vocabulary = 4096, 12288, 6, 32, 8, 4096
    hyperparameters = {
        "context_length": CONTEXT,
        "embedding_length": hidden,
        "block_count": layers,
        "feed_forward_length": inner,
        "head_count": heads,
        "head_count_kv": kv_heads,
        "layer_norm_rms_eps": 1e-6,
        "vocab_size": vocabulary,
    }
    tensors = list(_ends(hidden, vocabulary))
    for layer in range(layers):
        tensors += _dense_layer(f"blk.{layer}", hidden, inner, hidden // heads * kv_heads)
    return Model("llama", hyperparameters, tensors)


def _ends(hidden: int, vocabulary: int) -> Iterator[Tensor]:
    yield Tensor("token_embd.weight", (vocabulary, hidden), used=0.0)  # one row
    yield Tensor("output.weight", (vocabulary, hidden))
    yield Tensor("output_norm.weight", (hidden,), Fill.ONES)


def _dense_layer(at: str, hidden: int, inner: int, key: int) -> Iterator[Tensor]:
    yield Tensor(f"{at}.attn_q.weight", (hidden, hidden))
    yield Tensor(f"{at}.attn_k.weight", (key, hidden))
    yield Tensor(f"{at}.attn_v.weight", (key, hidden))
    yield Tensor(f"{at}.attn_output.weight", (hidden, hidden))
    yield Tensor(f"{at}.ffn_gate.weight", (inner, hidden))
    yield Tensor(f"{at}.ffn_up.weight", (inner, hidden))
    yield Tensor(f"{at}.ffn_down.weight", (hidden, inner))
    yield from (Tensor(f"{at}.{name}.weight", (hidden,), Fill.ONES) for name in ("attn_norm", "ffn_norm"))


def mixture(checkpoint: Path, top_k: int | None) -> Model:
    """A model with the layers of a Qwen3.5-MoE checkpoint, in llama.cpp's own architecture for it.

    `top_k` experts a token, or the checkpoint's number. RuntimeError for another family, and for rows that Q4_0 cannot
    hold.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    if config.get("model_type") != FAMILY:
        raise RuntimeError(f"a model like the checkpoint is made of {FAMILY} alone, not of {config.get('model_type')}")
    text = config["text_config"]
    used = top_k or text["num_experts_per_tok"]
    tensors = list(_ends(text["hidden_size"], text["vocab_size"]))
    for layer in range(text["num_hidden_layers"]):
        full = (layer + 1) % text["full_attention_interval"] == 0
        tensors += (_attention if full else _delta_net)(f"blk.{layer}", text)
        tensors += _experts(f"blk.{layer}", text, used / text["num_experts"])
    odd = [tensor.name for tensor in tensors if tensor.fill is Fill.QUANTISED and tensor.shape[-1] % BLOCK]
    if odd:
        raise RuntimeError(f"the rows of {odd[0]} are no multiple of {BLOCK} long, the block of Q4_0")
    return Model("qwen35moe", _mixture_hyperparameters(text, used), tensors)


def _mixture_hyperparameters(text: Mapping[str, Any], used: int) -> dict[str, Any]:
    rope = text["rope_parameters"]
    return {
        "context_length": CONTEXT,
        "embedding_length": text["hidden_size"],
        "block_count": text["num_hidden_layers"],
        "head_count": text["num_attention_heads"],
        "head_count_kv": text["num_key_value_heads"],
        "key_length": text["head_dim"],
        "value_length": text["head_dim"],
        "layer_norm_rms_eps": text["rms_norm_eps"],
        "vocab_size": text["vocab_size"],
        "rope_dimension_count": int(text["head_dim"] * rope["partial_rotary_factor"]),
        "rope_dimension_sections": [*rope["mrope_section"], 0],
        "rope_freq_base": float(rope["rope_theta"]),
        "expert_count": text["num_experts"],
        "expert_used_count": used,
        "expert_feed_forward_length": text["moe_intermediate_size"],
        "expert_shared_feed_forward_length": text["shared_expert_intermediate_size"],
        "ssm_conv_kernel": text["linear_conv_kernel_dim"],
        "ssm_inner_size": text["linear_num_value_heads"] * text["linear_value_head_dim"],
        "ssm_state_size": text["linear_key_head_dim"],
        "ssm_time_step_rank": text["linear_num_value_heads"],
        "ssm_group_count": text["linear_num_key_heads"],
        "full_attention_interval": text["full_attention_interval"],
    }


def _attention(at: str, text: Mapping[str, Any]) -> Iterator[Tensor]:
    """Full attention; the queries' projection gives each head's output gate too."""
    hidden, head = text["hidden_size"], text["head_dim"]
    queries, keys = head * text["num_attention_heads"], head * text["num_key_value_heads"]
    yield Tensor(f"{at}.attn_q.weight", (2 * queries, hidden))
    yield Tensor(f"{at}.attn_k.weight", (keys, hidden))
    yield Tensor(f"{at}.attn_v.weight", (keys, hidden))
    yield Tensor(f"{at}.attn_output.weight", (hidden, queries))
    yield from (Tensor(f"{at}.{name}.weight", (head,), Fill.ONES) for name in ("attn_q_norm", "attn_k_norm"))


def _delta_net(at: str, text: Mapping[str, Any]) -> Iterator[Tensor]:
    hidden, heads, head = text["hidden_size"], text["linear_num_value_heads"], text["linear_value_head_dim"]
    values, keys = heads * head, text["linear_num_key_heads"] * text["linear_key_head_dim"]
    yield Tensor(f"{at}.attn_qkv.weight", (2 * keys + values, hidden))
    yield Tensor(f"{at}.attn_gate.weight", (values, hidden))
    yield Tensor(f"{at}.ssm_conv1d.weight", (2 * keys + values, text["linear_conv_kernel_dim"]), Fill.NORMAL)
    yield Tensor(f"{at}.ssm_dt.bias", (heads,), Fill.ONES)
    yield Tensor(f"{at}.ssm_a", (heads,), Fill.MINUS_ONES)  # minus the exponential of A_log
    yield Tensor(f"{at}.ssm_beta.weight", (heads, hidden))
    yield Tensor(f"{at}.ssm_alpha.weight", (heads, hidden))
    yield Tensor(f"{at}.ssm_norm.weight", (head,), Fill.ONES)
    yield Tensor(f"{at}.ssm_out.weight", (hidden, values))


def _experts(at: str, text: Mapping[str, Any], used: float) -> Iterator[Tensor]:
    """The norms, the router, which llama.cpp keeps in float32, the shared expert, and the routed ones."""
    hidden, count = text["hidden_size"], text["num_experts"]
    inner, shared = text["moe_intermediate_size"], text["shared_expert_intermediate_size"]
    yield from (Tensor(f"{at}.{name}.weight", (hidden,), Fill.ONES) for name in ("attn_norm", "post_attention_norm"))
    yield Tensor(f"{at}.ffn_gate_inp.weight", (count, hidden), Fill.NORMAL)
    yield Tensor(f"{at}.ffn_gate_inp_shexp.weight", (hidden,), Fill.NORMAL)
    yield Tensor(f"{at}.ffn_gate_shexp.weight", (shared, hidden))
    yield Tensor(f"{at}.ffn_up_shexp.weight", (shared, hidden))
    yield Tensor(f"{at}.ffn_down_shexp.weight", (hidden, shared))
    yield Tensor(f"{at}.ffn_gate_exps.weight", (count, inner, hidden), used=used, routed=True)
    yield Tensor(f"{at}.ffn_up_exps.weight", (count, inner, hidden), used=used, routed=True)
    yield Tensor(f"{at}.ffn_down_exps.weight", (count, hidden, inner), used=used, routed=True)

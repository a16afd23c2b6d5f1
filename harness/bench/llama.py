"""llama.cpp, decoding a dense model of random weights that is made here: nothing is downloaded.

Imported only where `llama_cpp` and `gguf` are installed, in a process of its own.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 4096, 12288, 6, 32, 8, 4096
CONTEXT = 256
IDLE_S = 0.02  # its threads spin for a while after their work, which would disturb what is measured next
BLOCK, BLOCK_BYTES = 32, 18  # Q4_0: a half-precision scale, then 32 values of 4 bits
SCALE = np.float16(0.004)
EMBEDDING = "token_embd.weight"  # of which a token reads one row


class Llama:
    """A model of LAYERS layers in Q4_0, 0.7 GB, all of it in memory."""

    def __init__(self, folder: Path, threads: int) -> None:
        """The model's file lies in `folder` until it is loaded. RuntimeError when llama.cpp does not take it."""
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
            path = Path(scratch, "dense.gguf")
            self.nbytes = write(path)
            self.context = load(path, threads)

    def decode(self, tokens: int) -> float:
        """1e9 bytes of weights a second, over some tokens from an empty context."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        token = (llama_cpp.llama_token * 1)(1)
        start = time.perf_counter()
        for _ in range(tokens):
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(token, 1)):
                raise RuntimeError("llama.cpp cannot decode")
        llama_cpp.llama_synchronize(self.context)
        rate = tokens * self.nbytes / (time.perf_counter() - start) / 1e9
        time.sleep(IDLE_S)
        return rate


def matrices() -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of each quantised tensor."""
    key = HIDDEN // HEADS * KV_HEADS
    yield EMBEDDING, VOCABULARY, HIDDEN
    yield "output.weight", VOCABULARY, HIDDEN
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_q.weight", HIDDEN, HIDDEN
        yield f"blk.{layer}.attn_k.weight", key, HIDDEN
        yield f"blk.{layer}.attn_v.weight", key, HIDDEN
        yield f"blk.{layer}.attn_output.weight", HIDDEN, HIDDEN
        yield f"blk.{layer}.ffn_gate.weight", INNER, HIDDEN
        yield f"blk.{layer}.ffn_up.weight", INNER, HIDDEN
        yield f"blk.{layer}.ffn_down.weight", HIDDEN, INNER


def norms() -> Iterator[str]:
    """Names of the vectors of HIDDEN floats."""
    yield "output_norm.weight"
    for layer in range(LAYERS):
        yield from (f"blk.{layer}.{name}.weight" for name in ("attn_norm", "ffn_norm"))


def write(path: Path) -> int:
    """Write the model; the bytes of weights that a token touches."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer)
    random, touched = np.random.default_rng(0), 0
    for name, rows, columns in matrices():
        blocks = _blocks(random, rows, columns)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        touched += 0 if name == EMBEDDING else blocks.nbytes
    for name in norms():
        writer.add_tensor(name, np.ones(HIDDEN, np.float32))
        touched += HIDDEN * 4
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return touched


def _describe(writer: Any) -> None:
    """The hyperparameters, and a vocabulary of numbers alone."""
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")


def _blocks(random: np.random.Generator, rows: int, columns: int) -> Any:
    """Random values under one small scale: uint8 [rows, bytes of a row]."""
    blocks = random.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), dtype=np.uint8)
    blocks[..., :2] = np.frombuffer(SCALE.tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def _silent(level: int, text: bytes, data: object) -> None:
    """What llama.cpp says of itself, dropped."""


QUIET = llama_cpp.llama_log_callback(_silent)  # kept here: llama.cpp holds no reference


def load(path: Path, threads: int) -> Any:
    """A context of the model, which needs its file no more. RuntimeError when llama.cpp does not take it."""
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.use_mmap, options.n_gpu_layers = False, 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = CONTEXT, threads, threads
    context = llama_cpp.llama_init_from_model(model, settings) if model else None
    if not context:
        raise RuntimeError("llama.cpp does not take the model that was made for it")
    return context

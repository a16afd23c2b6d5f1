"""llama.cpp: writing a model of random weights for it, loading and decoding. Nothing is downloaded.

Imported only where `llama_cpp` and `gguf` are installed, in a process of its own.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

from baseline.durable import require_space
from harness.bench.llama_models import BLOCK_BYTES, CONTEXT, Fill, Model, Tensor, dense

IDLE_S = 0.02  # its threads spin for a while after their work, which would disturb what is measured next
SCALE = np.float16(0.004)
CONSTANTS = {Fill.ONES: 1.0, Fill.MINUS_ONES: -1.0}


class Dense:
    """The dense model, all of it in memory."""

    def __init__(self, folder: Path, threads: int) -> None:
        """The model's file lies in `folder` until it is loaded. RuntimeError when llama.cpp does not take it."""
        model = dense()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
            path = Path(scratch, "dense.gguf")
            write(path, model)
            self.context = load(path, threads, mapped=False)
        self.nbytes = model.touched

    def decode(self, tokens: int) -> float:
        """1e9 bytes of weights a second, over some tokens from an empty context."""
        clear(self.context)
        rate = tokens * self.nbytes / decode(self.context, [1] * tokens) / 1e9
        time.sleep(IDLE_S)
        return rate


def write(path: Path, model: Model) -> None:
    """Write a model, one tensor of it in memory at a time, down to the disk.

    RuntimeError where the disk has no room, or the installed gguf does not know the architecture.
    """
    require_space(path.parent, model.nbytes)
    writer = gguf.GGUFWriter(path, model.architecture)
    writer.add_tokenizer_model("no_vocab")
    try:
        for name, value in model.hyperparameters.items():
            getattr(writer, f"add_{name}")(value)
    except AttributeError as error:
        raise RuntimeError(f"the installed gguf is too old: {error}") from None
    for tensor in model.tensors:
        _declare(writer, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for seed, tensor in enumerate(model.tensors):
        writer.write_tensor_data(values(tensor, seed))
    writer.close()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _declare(writer: Any, tensor: Tensor) -> None:
    if tensor.fill is Fill.QUANTISED:
        shape = (*tensor.shape[:-1], tensor.nbytes // int(np.prod(tensor.shape[:-1])))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), tensor.nbytes, gguf.GGMLQuantizationType.Q4_0)
    else:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes)


def values(tensor: Tensor, seed: int) -> Any:
    """What is written of a tensor: its blocks as uint8 [blocks, BLOCK_BYTES], or its float32 values in its shape."""
    random = np.random.SFC64(seed)
    if tensor.fill is Fill.QUANTISED:
        words: Any = random.random_raw(-(-tensor.nbytes // 8))
        blocks = words.view(np.uint8)[: tensor.nbytes].reshape(-1, BLOCK_BYTES)
        blocks[:, :2] = np.frombuffer(SCALE.tobytes(), np.uint8)
        return blocks
    if tensor.fill is Fill.NORMAL:
        drawn = np.random.Generator(random).standard_normal(tensor.shape, np.float32)
        return drawn / np.float32(tensor.shape[-1] ** 0.5)
    return np.full(tensor.shape, CONSTANTS[tensor.fill], np.float32)


def _silent(level: int, text: bytes, data: object) -> None:
    """What llama.cpp says of itself, dropped."""


QUIET = llama_cpp.llama_log_callback(_silent)  # kept here: llama.cpp holds no reference


def load(path: Path, threads: int, mapped: bool) -> Any:
    """A context of the model: its weights as the file's pages, or copied to memory, in the order that is quickest to
    compute with. RuntimeError when llama.cpp does not take the model."""
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    options.use_extra_bufts = not mapped  # the reordered weights are a copy, which is never missing
    if any(name == "use_mmap" for name, *_ in options._fields_):
        options.use_mmap = mapped
    else:  # a newer llama.cpp
        options.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP if mapped else llama_cpp.LLAMA_LOAD_MODE_NONE
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = CONTEXT, threads, threads
    context = llama_cpp.llama_init_from_model(model, settings) if model else None
    if not context:
        raise RuntimeError("llama.cpp does not take the model that was made for it")
    return context


def clear(context: Any) -> None:
    """Empty the context."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


def decode(context: Any, tokens: Sequence[int]) -> float:
    """Seconds of decoding these tokens, one after another. RuntimeError when llama.cpp cannot."""
    start = time.perf_counter()
    for token in tokens:
        one = (llama_cpp.llama_token * 1)(token)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)):
            raise RuntimeError("llama.cpp cannot decode")
    llama_cpp.llama_synchronize(context)
    return time.perf_counter() - start

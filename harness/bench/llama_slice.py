"""llama.cpp on a model in the shapes of the streamed one: warm, and with every routed expert missing.

Imported only where `llama_cpp` and `gguf` are installed, in a process of its own.
"""

import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

from baseline.probe import memory_bytes
from harness.bench.llama import IDLE_S, clear, decode, load, write
from harness.bench.llama_models import Model, Touched, mixture
from harness.bench.pages import Pages, bytes_read, forget


class Slice:
    """The model twice: `quick`, its weights in memory, reordered as llama.cpp does it by default, and `mapped`, its
    weights the pages of a file, which is llama.cpp's way to run what memory cannot hold."""

    def __init__(self, checkpoint: Path, top_k: int | None, folder: Path, threads: int) -> None:
        """The model's file lies in `folder` until it is mapped. RuntimeError where there is no such model."""
        self.model = mixture(checkpoint, top_k)
        if self.model.nbytes > memory_bytes() / 4:
            raise RuntimeError("the model is too large to be in memory twice")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as scratch:
            path = Path(scratch, "slice.gguf")
            write(path, self.model)
            forget(path)
            self.quick, self.mapped = (load(path, threads, mapped) for mapped in (False, True))
            self.pages = _expert_pages(path, self.model)
        self.random = np.random.default_rng(0)
        self.missed, self.read = 0, 0
        self.warm(1)

    def obstacle(self) -> str:
        """Why no expert can be made to miss; '' where they can."""
        if self.pages is None:
            return "pages of a file that is mapped can be dropped on Linux alone"
        try:
            self.pages.drop()
            bytes_read()
        except (RuntimeError, OSError) as error:
            return str(error)
        return ""

    def warm(self, tokens: int) -> float:
        """Tokens/s of random tokens from memory; the first of a context, which is not in it, comes before them."""
        clear(self.quick)
        decode(self.quick, self._tokens(1))
        seconds = decode(self.quick, self._tokens(tokens))
        time.sleep(IDLE_S)
        return tokens / seconds

    def missing(self, tokens: int) -> float:
        """Tokens/s of random tokens from an empty context, every routed expert dropped before each, untimed.

        RuntimeError where there is an obstacle.
        """
        if self.pages is None:
            raise RuntimeError(self.obstacle())
        clear(self.mapped)
        return tokens / sum(self._miss(self.pages, token) for token in self._tokens(tokens))

    def _miss(self, pages: Pages, token: int) -> float:
        pages.drop()
        before = bytes_read()
        seconds = decode(self.mapped, [token])
        self.read += bytes_read() - before
        self.missed += 1
        time.sleep(IDLE_S)
        return seconds

    def touched(self) -> Touched:
        """Of a token; nothing is read for one before the first that missed."""
        disk = self.read / max(self.missed, 1)
        return Touched(self.model.architecture, self.model.touched, self.model.touched_experts, disk)

    def _tokens(self, count: int) -> list[int]:
        return [int(token) for token in self.random.integers(0, self.model.hyperparameters["vocab_size"], count)]


def _expert_pages(path: Path, model: Model) -> Pages | None:
    """Those of the routed experts' weights, of the file that llama.cpp has mapped; None elsewhere than on Linux."""
    if sys.platform != "linux":
        return None
    return Pages(path, _expert_ranges(path, model))  # the reader's own mapping is gone by then


def _expert_ranges(path: Path, model: Model) -> list[tuple[int, int]]:
    routed = {tensor.name for tensor in model.tensors if tensor.routed}
    found = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name in routed]
    return [(int(tensor.data_offset), int(tensor.data_offset + tensor.n_bytes)) for tensor in found]

"""A random-weight checkpoint with the exact layer shapes of a real model, or of a slice of it."""

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters, make_shards, save_config
from tokenizers import Tokenizer

from baseline.checkpoint import safetensors_header
from baseline.durable import durable, require_space
from baseline.errors import UsageError
from baseline.meter import Meter, Progress
from baseline.random_weights import RandomWeights
from baseline.shapes import Shape, build

MARK = "synth.json"  # what the folder holds or is to hold; written first
CONFIG = "config.json"  # written last: without it a folder is no model
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
VERSION = 1  # of the weights that a shape and a seed stand for


def tokenizer_ids(tokenizer: Path) -> int:
    """The number of ids of the tokenizer in the folder `tokenizer`."""
    return int(Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size(with_added_tokens=True))


def synth(shape: Shape, dst: Path, tokenizer: Path, seed: int = 0, progress: Progress | None = None) -> int:
    """Write a checkpoint of `shape` to the folder `dst`, in constant memory, and return the bytes of its weights.

    It is what mlx-lm's conversion of the real model would write, 4 bits in groups of 64, but for the weights, which
    are random and the same for the same seed, and for the tokenizer, which is that of the folder `tokenizer`.
    An interrupted call leaves no config.json, and goes on with its first unfinished file when it is made again.
    Raises UsageError when `dst` holds anything else, or its disk has no room or refuses.
    """
    special = json.loads((tokenizer / "generation_config.json").read_text())
    model, config = build(shape, {name: special[name] for name in ("eos_token_id", "pad_token_id")})
    shards = _shards(dict(tree_flatten(model.parameters())))
    total = sum(array.nbytes for arrays in shards.values() for array in arrays.values())
    weights = RandomWeights(shape, config["quantization"], seed)
    try:
        with _claimed(dst, {"version": VERSION, "seed": seed, **dataclasses.asdict(shape)}):
            written = {name: _is_written(dst / name, arrays) for name, arrays in shards.items()}
            require_space(dst, sum(_nbytes(shards[name]) for name, done in written.items() if not done))
            meter = Meter(progress, total)
            for name, arrays in shards.items():
                if written[name]:
                    meter.advance(_nbytes(arrays))
                else:
                    _write_shard(dst / name, arrays, weights, meter)
            _write_rest(dst, shards, total, get_total_parameters(model), tokenizer, config)
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or dst}: {error.strerror}; the same command goes on from here"
        ) from None
    return total


def _shards(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tensors of each file, by the names that mlx-lm gives the files."""
    shards = make_shards(arrays)
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _nbytes(arrays: dict[str, Any]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _is_written(path: Path, arrays: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == len(safetensors_header(arrays)) + _nbytes(arrays)


@contextmanager
def _claimed(dst: Path, contents: dict[str, Any]) -> Iterator[None]:
    """Mark `dst` as holding `contents` and lock it. UsageError when it holds something else or is being written."""
    mark = dst / MARK
    if dst.is_dir() and any(dst.iterdir()) and not mark.is_file():
        raise UsageError(f"{dst} is not empty and not made by synth; choose another DST")
    dst.mkdir(parents=True, exist_ok=True)
    with mark.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another nightforge synth is writing {dst}; wait for it or end it") from None
        stream.seek(0)
        if text := stream.read():
            if text != json.dumps(contents):
                raise UsageError(f"{dst} holds another checkpoint or a part of it: {text}; choose another DST")
        else:
            stream.write(json.dumps(contents))
            stream.flush()
        yield


def _write_shard(path: Path, arrays: dict[str, Any], weights: RandomWeights, meter: Meter) -> None:
    with durable(path) as partial, partial.open("wb") as stream:
        stream.write(safetensors_header(arrays))
        for name, array in arrays.items():
            for piece in weights.pieces(name, array):
                stream.write(piece)
                meter.advance(len(piece))


def _write_rest(
    dst: Path, shards: dict[str, dict[str, Any]], total: int, parameters: int, tokenizer: Path, config: dict[str, Any]
) -> None:
    """The index, the tokenizer and, last, config.json."""
    files = {name: file for file, arrays in shards.items() for name in arrays}
    metadata = {"total_size": total, "total_parameters": parameters}
    with durable(dst / "model.safetensors.index.json") as partial:
        partial.write_text(json.dumps({"metadata": metadata, "weight_map": dict(sorted(files.items()))}, indent=4))
    for name in TOKENIZER_FILES:
        with durable(dst / name) as partial:
            shutil.copyfile(tokenizer / name, partial)
    with durable(dst / CONFIG) as partial:
        save_config(config, partial)

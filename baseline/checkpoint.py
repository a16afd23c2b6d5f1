"""An MLX checkpoint on disk: where each tensor's bytes lie in its safetensors files."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import xxhash

from baseline.errors import UsageError

# Safetensors' names of dtypes and MLX's: https://huggingface.co/docs/safetensors, "Format".
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
STORED_NAMES = {mlx: stored for stored, mlx in DTYPES.items()}
HEADER_LIMIT = 100_000_000  # bytes, safetensors' own limit
SAMPLE = 4096  # bytes at each end of a tensor that go into the fingerprint


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's bytes: `nbytes` at `offset` of `file`. `dtype` is MLX's name where it has one."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint folder by their names on disk, from the files that mlx-lm would load.

    Raises UsageError naming what is missing, truncated or not a checkpoint at all.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; expected an MLX checkpoint (config.json, model*.safetensors)")
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not a model: it has no config.json")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UsageError(f"{folder} is not a model: it has no model*.safetensors")
    _check_index(folder, {file.name for file in files})
    return {name: tensor for file in files for name, tensor in read_header(file).items()}


def _check_index(folder: Path, present: set[str]) -> None:
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    try:
        listed = set(json.loads(path.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not a safetensors index") from None
    if missing := sorted(listed - present):
        raise UsageError(f"{folder} is incomplete: {missing[0]} is missing ({len(missing)} of {len(listed)} files)")


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file. Raises UsageError for a file that is truncated or no such file."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= HEADER_LIMIT else None
        size = file.stat().st_size
        tensors = dict(_tensors(file, header, 8 + length))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{file} is not a safetensors file") from None
    end = max((tensor.offset + tensor.nbytes for tensor in tensors.values()), default=0)
    if size < end:
        raise UsageError(f"{file} is truncated: it has {size} bytes, its header promises {end}")
    return tensors


def _tensors(file: Path, header: Any, start: int) -> Iterator[tuple[str, StoredTensor]]:
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = DTYPES.get(entry["dtype"], entry["dtype"])
            yield name, StoredTensor(file, dtype, tuple(entry["shape"]), start + begin, end - begin)


def read_into(descriptor: int, buffer: memoryview, offset: int, file: Path) -> None:
    """Fill `buffer` from `offset` of an open file. Raises UsageError naming `file` on an error or its end."""
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
        except OSError as error:
            raise UsageError(f"{file} cannot be read at byte {offset + done}: {error.strerror}") from None
        if count == 0:
            raise UsageError(f"{file} has no byte {offset + done} any more: it was cut short while being read")
        done += count


def fingerprint(folder: Path) -> str:
    """32 hexadecimal digits that name a checkpoint's content, whatever its folder is called.

    xxh3_128 of config.json, of every tensor's name, dtype and shape, and of the first and last 4 KiB of its
    bytes: seconds on 200 GB, and any re-quantisation or fine-tune differs. It is no proof of equality; that
    is `baseline.pack.verify` with its source.
    """
    tensors = read_checkpoint(folder)
    digest = xxhash.xxh3_128(_config_bytes(folder))
    for file in sorted({tensor.file for tensor in tensors.values()}):
        with file.open("rb") as stream:
            for name, tensor in sorted(tensors.items()):
                if tensor.file == file:
                    digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
                    digest.update(_sample(stream.fileno(), tensor))
    return digest.hexdigest()


def _config_bytes(folder: Path) -> bytes:
    try:
        return (folder / "config.json").read_bytes()
    except OSError as error:
        raise UsageError(f"{folder / 'config.json'} cannot be read: {error.strerror}") from None


def _sample(descriptor: int, tensor: StoredTensor) -> bytes:
    count = min(SAMPLE, tensor.nbytes)
    sample = memoryview(bytearray(2 * count))
    read_into(descriptor, sample[:count], tensor.offset, tensor.file)
    read_into(descriptor, sample[count:], tensor.offset + tensor.nbytes - count, tensor.file)
    return bytes(sample)


def write_safetensors(file: Path, arrays: dict[str, mx.array]) -> None:
    """Write arrays to a safetensors file, taking each out of `arrays`: one at a time is in memory.

    mx.save_safetensors would evaluate all of them first. Raises OSError when the disk refuses.
    """
    names = list(arrays)
    with file.open("wb") as stream:
        stream.write(safetensors_header(arrays))
        for name in names:
            stream.write(tensor_bytes(arrays.pop(name)))


def safetensors_header(arrays: Mapping[str, mx.array]) -> bytes:
    """What a safetensors file begins with; the arrays' bytes follow in their order. Evaluates none of them."""
    entries, end = {}, 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": STORED_NAMES[dtype_name(array)],
            "shape": array.shape,
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    header = json.dumps({"__metadata__": {"format": "mlx"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def dtype_name(array: mx.array) -> str:
    """MLX's name of an array's dtype, without its package: bfloat16, uint32, ..."""
    return str(array.dtype).removeprefix("mlx.core.")


def tensor_bytes(array: mx.array) -> memoryview:
    """The bytes of an array in row-major order, as a safetensors file holds them. Evaluates it."""
    raw: Any = mx.contiguous(array).reshape(-1).view(mx.uint8)
    return memoryview(raw)

"""The model that a command works on: the bundled one by its name, or a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baseline.checkpoint import fingerprint
from baseline.errors import UsageError
from baseline.layout import Layout, load_layout
from baseline.manifest import MANIFEST, load_manifest
from baseline.pack import pack
from harness.paths import BUNDLED, bundled_golden, bundled_model, cache_folder, data_folder

LAYOUT = "whole_expert"


@dataclass(frozen=True)
class PackedModel:
    """A packed model, with the fingerprint of the checkpoint that it was packed from."""

    folder: Path
    fingerprint: str
    bundled: bool


def find_layout(name: str) -> Layout:
    """A layout by its name, or by its YAML file. UsageError lists those that exist."""
    if name.endswith(".yaml"):
        return load_layout(Path(name))
    folder = data_folder("kernels") / "layouts"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UsageError(f"layout must be one of {', '.join(names)}, got {name!r}")
    return load_layout(folder / f"{name}.yaml")


def packed_model(model: str, say: Callable[[str], None]) -> PackedModel:
    """The packed model of the `model` option; the bundled one is packed on its first use.

    UsageError when there is none, CheckError when it is damaged.
    """
    if model != BUNDLED:
        folder = _folder(model)
        if not (folder / MANIFEST).is_file() and (folder / "config.json").is_file():
            raise UsageError(f"{folder} is not packed; pack it first: nightforge pack {folder} DST")
        identity = load_manifest(folder).source.fingerprint
        return PackedModel(folder, identity, bundled=identity == fingerprint(bundled_model()))
    identity = fingerprint(bundled_model())
    folder = cache_folder() / "models" / f"{BUNDLED}-{identity}"
    if not (folder / MANIFEST).is_file():
        say(f"packing the bundled model into {folder}")
    pack(bundled_model(), folder, find_layout(LAYOUT))
    return PackedModel(folder, identity, bundled=True)


def checkpoint(model: str) -> Path:
    """The checkpoint of the `model` option, unpacked. UsageError when it is none."""
    if model == BUNDLED:
        return bundled_model()
    folder = _folder(model)
    if (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} is a packed model; a golden record is made of the checkpoint it came from")
    return folder


def golden_folder(option: str | None, identity: str, bundled: bool) -> Path:
    """Where a model's golden record is: what the `golden` option says, the bundled one, or in the cache."""
    if option is not None:
        return Path(option)
    return bundled_golden() if bundled else cache_folder() / "golden" / identity


def _folder(model: str) -> Path:
    folder = Path(model)
    if not folder.is_dir():
        raise UsageError(f"model {model!r} is neither {BUNDLED!r}, the bundled one, nor a folder")
    return folder

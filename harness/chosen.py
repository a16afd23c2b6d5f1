"""What the engine of a command runs with: what the options name, or what was applied on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from baseline.errors import UsageError
from baseline.layout import Layout
from baseline.manifest import MANIFEST, load_manifest
from baseline.variant import Choice
from harness import converted
from harness.applied import RECORD, applied
from harness.config import Config, load_config
from harness.models import PackedModel, find_layout
from harness.paths import cache_folder, data_folder
from harness.recorded import record, recorded

MLX = "mlx"  # as a configuration: MLX's own ops, whatever was applied


@dataclass(frozen=True)
class Chosen:
    """Kernels and the folder of their contracts, I/O settings, and the layout that the record of a candidate asks for;
    None: any."""

    choices: Mapping[str, Choice]
    io: Mapping[str, int | str]
    kernels: Path
    layout: Layout | None = None
    record: Path | None = None

    def folder(self, packed: PackedModel, say: Callable[[str], None]) -> Path:
        """The folder of a model in this layout. UsageError names the command that makes it, where there is none."""
        manifest = load_manifest(packed.folder)
        if self.layout is None or self.layout.lies_as(manifest.layout):
            return packed.folder
        folder = converted.place(cache_folder() / "build", manifest, self.layout)
        if not (folder / MANIFEST).is_file():
            raise UsageError(
                f"{self.record} is for the layout {self.layout.name}, {packed.folder} is in {manifest.layout.name}; "
                f"convert it first: nightforge pack {packed.folder} {folder} --layout {self.record}"
            )
        say(f"in the layout {self.layout.name}: {folder}")
        return folder


def given(config: Config) -> Chosen:
    """What the `configuration` option names; without one, MLX's own ops and `io`. UsageError where it is no record."""
    if config.configuration in (None, MLX):
        return Chosen({}, asdict(config.io), data_folder("kernels"))
    path = Path(config.configuration)
    choices, configuration = recorded(path, config.target.name, data_folder("kernels"))
    io = asdict(config.io) | dict(configuration.io)
    return Chosen(choices, io, data_folder("kernels"), configuration.layout, path)


def chosen(config: Config, named: Chosen, fingerprint: str, say: Callable[[str], None]) -> Chosen:
    """What was `named`, or without a `configuration` option what was applied for the target and the model."""
    default = applied(config.target.name, fingerprint) if config.configuration is None else None
    if default is None:
        return named
    io = asdict(config.io)
    if config.io == load_config([]).io:
        io |= dict(default.configuration.io)
    say(f"with what was applied: {default.folder}")
    return Chosen(default.choices(), io, default.kernels, default.configuration.layout, default.folder / RECORD)


def named_layout(name: str) -> Layout:
    """A layout by its name, its file, or the record of a candidate that has one. UsageError where there is none."""
    if not name.endswith(".json"):
        return find_layout(name)
    if (layout := record(Path(name)).configuration.layout) is None:
        raise UsageError(f"configuration {name} is for any layout: it is from before searches had them")
    return layout

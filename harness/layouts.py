"""The layouts that a search may choose: the committed ones, and those that are written in it."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from baseline.durable import durable
from baseline.errors import UsageError
from baseline.layout import Layout, check_layout, load_layout
from baseline.variant import PLAIN
from harness.settings import SearchSettings

LAYOUTS = "layouts"  # the folder of a folder of kernels that holds them
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class Layouts(Mapping[str, Layout]):
    """Layouts by name. folder: where new ones are written, a file each; `written` are the names of those."""

    def __init__(self, folder: Path, committed: Iterable[Layout] = ()) -> None:
        """`committed` are there already. UsageError where a file of `folder` holds no layout."""
        self._folder = folder
        found = load_layouts(folder)
        self._layouts = {layout.name: layout for layout in (*committed, *found)}
        self.written = {layout.name for layout in found}

    def add(self, layout: Layout) -> Layout:
        """Writes a new layout, and puts it with the others; one that puts every byte where another does is that other.

        A name that is taken gets a number. UsageError, in one line, when it is no layout.
        """
        check_layout(layout)
        if not NAME.match(layout.name):
            raise UsageError(f"a layout's name must be lower-case words joined by _, got {layout.name!r}")
        if (same := self.same(layout)) is not None:
            return same
        layout = replace(layout, name=free_name(layout.name, self))
        self._folder.mkdir(parents=True, exist_ok=True)
        with durable(self._folder / f"{layout.name}.yaml") as partial:
            partial.write_text(yaml.safe_dump(layout.to_json(), sort_keys=False))
        self._layouts[layout.name] = layout
        self.written.add(layout.name)
        return layout

    def same(self, layout: Layout) -> Layout | None:
        """The one that puts every byte where `layout` does."""
        return next((other for other in self._layouts.values() if other.lies_as(layout)), None)

    def __getitem__(self, name: str) -> Layout:
        return self._layouts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layouts)

    def __len__(self) -> int:
        return len(self._layouts)


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or with the first number that makes it one that is not taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def load_layouts(folder: Path) -> list[Layout]:
    """Those of a folder, by name. UsageError where a file is none."""
    return [load_layout(path) for path in sorted(folder.glob("*.yaml"))]


def usable_layouts(settings: SearchSettings) -> list[Layout]:
    """The committed layouts that a search may choose."""
    return [] if settings.variants == PLAIN else load_layouts(settings.kernels / LAYOUTS)

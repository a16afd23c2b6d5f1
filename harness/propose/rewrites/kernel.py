"""A variant's text in parts that a rewrite can change: header, helpers and body."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import yaml
from tree_sitter import Node

from baseline.variant import FILE
from harness.propose.rewrites.tree import Code, identifiers

_START, _END = "/*---\n", "\n---*/\n"
_HELPERS, _BODY = "// helpers\n", "// body\n"
_OPEN, _CLOSE = "void nf_body() {\n", "\n}\n"
LINE = 112  # characters of a header's line


@dataclass(frozen=True)
class Kernel:
    """A variant, its header as plain data."""

    header: Mapping[str, Any]
    helpers: str
    body: str

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str) -> "Kernel | None":
        """None for what is no variant's text. Many rewrites look at one text: what was parsed last is kept."""
        file = FILE.match(text)
        given = _mapping(file["header"]) if file else None
        if file is None or given is None:
            return None
        code = file["code"]
        before, mark, body = code.rpartition(_BODY)
        return cls(given, before.strip().removeprefix(_HELPERS) if mark else "", body if mark else code)

    @cached_property
    def code(self) -> Code:
        """Helpers and body as one unit, the body as a function."""
        return Code(f"{self.helpers}\n{_OPEN}{self.body}{_CLOSE}")

    @cached_property
    def body_block(self) -> Node | None:
        """The body's block in `code`, if it was understood."""
        last = self.code.root.named_children[-1] if self.code.root.named_children else None
        return last.child_by_field_name("body") if last is not None and "nf_body" in identifiers(last) else None

    @property
    def traits(self) -> tuple[str, ...]:
        """The rewrites that made it, first to last."""
        return tuple(map(str, self.header.get("traits", [])))

    @property
    def target(self) -> str:
        """cpu, metal or cuda."""
        return str(self.header.get("target", ""))

    def with_code(self, code: Code) -> "Kernel":
        """Another code, in one unit as `code` gives it."""
        helpers, _, body = code.text.partition(_OPEN)
        return replace(self, helpers=helpers.strip("\n") + "\n" if helpers.strip() else "", body=body[: -len(_CLOSE)])

    def with_header(self, **changes: Any) -> "Kernel":
        """Other entries of the header."""
        return replace(self, header={**self.header, **changes})

    def with_tunable(self, name: str, values: Sequence[int]) -> "Kernel":
        """One more tunable, its default first."""
        return self.with_header(tunables={**self.header.get("tunables", {}), name: list(values)})

    def written(self) -> str:
        """The variant's text."""
        header = yaml.safe_dump(dict(self.header), sort_keys=False, default_flow_style=None, width=LINE)
        code = f"{_HELPERS}{self.helpers}{_BODY}{self.body}" if self.helpers else self.body
        return f"{_START}{header.rstrip()}{_END}{code}"


def _mapping(header: str) -> Mapping[str, Any] | None:
    """A header's entries; None where those that rewrites change are not what they should be."""
    try:
        given = yaml.safe_load(header)
    except yaml.YAMLError:
        return None
    if not isinstance(given, dict):
        return None
    kinds = {"tunables": dict, "launch": dict, "supports": dict, "traits": list, "requires": list}
    return given if all(isinstance(given.get(name, kind()), kind) for name, kind in kinds.items()) else None

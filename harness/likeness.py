"""Near-duplicates: variants whose code is the same syntax tree up to names and constants.

Such a variant is no new idea but another value of a tunable. What counts is the tree of helpers, body and launch
geometry: names that the code itself declares are numbered in order of first use, numbers are left out, comments and
layout do not matter. What the contract, the prelude or Metal's library name keeps its name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

import tree_sitter_cpp
import xxhash
import yaml
from tree_sitter import Language, Node, Parser

from baseline.errors import UsageError
from baseline.variant import FILE

# Address spaces of Metal, as qualifiers that the C++ grammar knows and no kernel uses.
QUALIFIERS = {"device": "_Atomic", "threadgroup": "restrict", "constant": "_Noreturn", "thread": "constinit"}
_QUALIFIER = re.compile(r"\b(device|threadgroup|constant|thread)(?=\s+[A-Za-z_])")
NAMES = frozenset({"identifier", "type_identifier", "field_identifier", "namespace_identifier", "statement_identifier"})
# Nodes whose `name` is declared by them; of other declarations it is found under `declarator`.
NAMING = frozenset(
    {"alias_declaration", "struct_specifier", "class_specifier", "enum_specifier", "enumerator", "preproc_def"}
    | {"preproc_function_def", "namespace_definition", "concept_definition"}
)
TYPE_PARAMETERS = frozenset({"type_parameter_declaration", "optional_type_parameter_declaration"})
WRAPPING = frozenset({"reference_declarator", "parenthesized_declarator", "structured_binding_declarator"})


@dataclass(frozen=True)
class Shape:
    """What is left of a variant's code without names and constants, as a hash, and the constants, in order."""

    digest: str
    constants: tuple[str, ...]


@dataclass(frozen=True)
class Twin:
    """A variant with the same code: its name, and the constants that differ, from it to the new one."""

    name: str
    differences: tuple[tuple[str, str], ...]

    def line(self) -> str:
        """Why the new one is turned down, and what to do instead."""
        if not self.differences:
            return f"same as {self.name} but for names"
        changes = ", ".join(f"{old} -> {new}" for old, new in self.differences)
        return f"same as {self.name} but for {changes}: make it a tunable"


def twin(text: str, others: Mapping[str, str]) -> Twin | None:
    """The first of `others` (texts of variants, by name) that is `text` up to names and constants.

    UsageError when a text has no header that can be read.
    """
    mine = shape(text)
    for name, other in others.items():
        theirs = shape(other)
        if theirs.digest == mine.digest:
            pairs = zip_longest(theirs.constants, mine.constants, fillvalue="nothing")
            return Twin(name, tuple(dict.fromkeys((old, new) for old, new in pairs if old != new)))
    return None


@cache
def shape(text: str) -> Shape:
    """The shape of a variant's text. UsageError when it has no header that can be read."""
    header, code = split(text)
    given = header.get("tunables")
    tunables = given if isinstance(given, dict) else {}  # what else it may be is for the parser to refuse
    root = _parse(_program(code, header.get("launch")))
    declared = {*_declared(root), *tunables}
    numbers: list[str] = []
    digest = xxhash.xxh3_128_hexdigest("\n".join(_tokens(root, declared, numbers)).encode())
    return Shape(digest, (*numbers, *(f"{name} of {values}" for name, values in tunables.items())))


def split(text: str) -> tuple[Mapping[str, Any], str]:
    """The header and the code of a variant's text. UsageError when it has no header that can be read."""
    parts = FILE.match(text)
    try:
        header = yaml.safe_load(parts["header"]) if parts else None
    except yaml.YAMLError as error:
        raise UsageError(f"its header cannot be read: {' '.join(str(error).split())}") from None
    if parts is None or not isinstance(header, dict):
        raise UsageError("it must start with a header between `/*---` and `---*/` lines")
    return header, parts["code"]


def _program(code: str, launch: Any) -> str:
    """The code of a variant as a C++ file: the body and the launch geometry are functions in it."""
    helpers, _, body = code.rpartition("// body\n")
    entries = launch.items() if isinstance(launch, dict) else ()
    expressions = [(key, given if isinstance(given, list) else [given]) for key, given in entries]
    geometry = "".join(f"{key}({', '.join(map(str, given))});\n" for key, given in expressions)
    program = f"{helpers}\nvoid body() {{\n{body}\n}}\nvoid launch() {{\n{geometry}}}\n"
    return _QUALIFIER.sub(lambda found: QUALIFIERS[found[1]], program)


def _parse(program: str) -> Node:
    return Parser(Language(tree_sitter_cpp.language())).parse(program.encode()).root_node


def _walk(root: Node) -> Iterator[tuple[Node, bool]]:
    """Every node but comments, in order, when it is entered (True) and left (False); a tree may be very deep."""
    stack = [(root, True)]
    while stack:
        node, entered = stack.pop()
        yield node, entered
        if entered and node.children:
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(node.children) if child.type != "comment")


def _tokens(root: Node, declared: set[str], numbers: list[str]) -> Iterator[str]:
    """The tree as a sequence; its constants go to `numbers`."""
    order: dict[str, int] = {}
    for node, entered in _walk(root):
        text = (node.text or b"").decode()
        if not entered:
            yield ")"
        elif node.children:
            yield f"({node.type}"
        elif node.type == "number_literal":
            numbers.append(text)
            yield "#"
        elif node.type in NAMES and text in declared:
            yield f"name {order.setdefault(text, len(order))}"
        else:
            yield f"{node.type} {' '.join(text.split())}"


def _declared(root: Node) -> Iterator[str]:
    """The names that code declares: locals, parameters, helpers, types and their members."""
    for node, entered in _walk(root):
        if not entered:
            continue
        if node.type in NAMING and (name := node.child_by_field_name("name")) is not None:
            yield (name.text or b"").decode()
        elif node.type in TYPE_PARAMETERS:
            yield from _named(node.named_children[:1])
        elif node.type in WRAPPING:
            yield from _named(node.named_children)
        else:
            yield from _named(node.children_by_field_name("declarator"))


def _named(nodes: Iterable[Node]) -> Iterator[str]:
    return ((node.text or b"").decode() for node in nodes if node.type in NAMES)

"""The syntax tree of a kernel's C++ or Metal text: parse, match against patterns, edit in place.

tree-sitter-cpp knows no Metal: the address spaces are blanked before it reads, which keeps every offset.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import tree_sitter_cpp
from tree_sitter import Language, Node, Parser

_LANGUAGE = Language(tree_sitter_cpp.language())
_SPACES = re.compile(rb"\b(?:device|threadgroup|constant|thread)\b(?=\s+[A-Za-z_])")
_COMMUTES = ("+", "*")
Bindings = Mapping[str, Node]


class OverlapError(ValueError):
    """Two edits want the same bytes."""


@dataclass(frozen=True)
class Edit:
    """The bytes from `start` to `end` become `text`."""

    start: int
    end: int
    text: str

    @classmethod
    def of(cls, node: Node, text: str) -> "Edit":
        """A whole node becomes `text`."""
        return cls(node.start_byte, node.end_byte, text)


@dataclass(frozen=True)
class Code:
    """A text and its tree."""

    text: str

    @cached_property
    def bytes(self) -> bytes:
        """The text in UTF-8, in which the tree's offsets count."""
        return self.text.encode()

    @cached_property
    def root(self) -> Node:
        """The translation unit."""
        blanked = _SPACES.sub(lambda found: b" " * len(found[0]), self.bytes)
        return Parser(_LANGUAGE).parse(blanked).root_node

    @property
    def sound(self) -> bool:
        """Whether all of it was understood."""
        return not self.root.has_error

    def of(self, node: Node) -> str:
        """A node's text, address spaces included."""
        return self.bytes[node.start_byte : node.end_byte].decode()

    def between(self, start: int, end: int) -> str:
        """The text between two offsets."""
        return self.bytes[start:end].decode()

    def edited(self, edits: Iterable[Edit]) -> "Code":
        """The text after edits. Raises OverlapError where two want the same bytes."""
        out, at = list[bytes](), 0
        for edit in sorted(edits, key=lambda e: (e.start, e.end)):
            if edit.start < at:
                raise OverlapError(f"bytes {edit.start} to {at} are edited twice")
            out += [self.bytes[at : edit.start], edit.text.encode()]
            at = edit.end
        return Code(b"".join([*out, self.bytes[at:]]).decode())

    def names(self) -> set[str]:
        """Every word of it outside of comments: what a new name must not be."""
        return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"//.*|/\*.*?\*/", "", self.text)))

    def fresh(self, wanted: str) -> str:
        """`wanted`, with a number behind it where it is taken."""
        taken = self.names()
        return next(name for name in _numbered(wanted) if name not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it, parents first."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def of_type(node: Node, *types: str) -> list[Node]:
    """The nodes of these types at or below `node`, parents first."""
    return [found for found in walk(node) if found.type in types]


def inside(node: Node, outer: Node) -> bool:
    """Whether `node` lies within `outer`."""
    return outer.start_byte <= node.start_byte and node.end_byte <= outer.end_byte


def ancestors(node: Node) -> Iterator[Node]:
    """The nodes around `node`, the nearest first."""
    parent = node.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def text_of(node: Node) -> str:
    """A node's own text; Metal's address spaces are blanks in it."""
    return (node.text or b"").decode()


def identifiers(node: Node) -> set[str]:
    """The variables and functions that a node names."""
    return {text_of(n) for n in of_type(node, "identifier", "type_identifier")}


def tokens(node: Node) -> tuple[str, ...]:
    """The words of a node, blanks and comments left out."""
    return tuple(text_of(n) for n in walk(node) if not n.children and n.type != "comment")


def statements(block: Node) -> list[Node]:
    """What a block, or a single statement in its place, holds."""
    if block.type != "compound_statement":
        return [block]
    return [n for n in block.named_children if n.type != "comment"]


def bare(node: Node) -> Node:
    """What parentheses and `expression;` hold."""
    while node.type in ("parenthesized_expression", "expression_statement") and node.named_child_count == 1:
        node = node.named_children[0]
    return node


def expression(text: str) -> tuple[Code, Node] | None:
    """An expression's tree, with the code that it is of; None where the text is none."""
    code = Code(f"void f() {{ return {text}; }}")  # as a statement, `a * b;` would declare a pointer
    found = of_type(code.root, "return_statement")
    if code.root.has_error or not found or found[0].named_child_count != 1:
        return None
    return code, found[0].named_children[0]


@cache
def _pattern(text: str) -> Node:
    found = expression(text)
    assert found is not None, f"no pattern: {text}"
    return bare(found[1])


def match(pattern: str, node: Node) -> Bindings | None:
    """How `node` is an instance of a C++ expression whose `$names` stand for any expression; None if it is
    not one. Sums and products match in either order, parentheses do not count, and a name matches equal texts."""
    return next(_unify(_pattern(pattern), node, {}), None)


def find(pattern: str, node: Node) -> Iterator[tuple[Node, Bindings]]:
    """The nodes at or below `node` that match."""
    for candidate in of_type(node, _pattern(pattern).type):
        if (bindings := match(pattern, candidate)) is not None:
            yield candidate, bindings


def _unify(pattern: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    pattern, node = bare(pattern), bare(node)
    name = text_of(pattern)
    if not pattern.children and name.startswith("$"):
        if name not in bound or tokens(bound[name]) == tokens(node):
            yield {**bound, name: node}
    elif pattern.type == node.type:
        if not pattern.children:
            if name == text_of(node):
                yield bound
        else:
            yield from _unify_children(pattern, node, bound)


def _unify_children(pattern: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    wanted = [c for c in pattern.children if c.type != "comment"]
    given = [c for c in node.children if c.type != "comment"]
    yield from _unify_all(wanted, given, bound)
    if pattern.type == "binary_expression" and text_of(wanted[1]) in _COMMUTES:
        yield from _unify_all(wanted, given[::-1], bound)


def _unify_all(wanted: Sequence[Node], given: Sequence[Node], bound: Bindings) -> Iterator[Bindings]:
    if len(wanted) != len(given):
        return
    if not wanted:
        yield bound
        return
    for found in _unify(wanted[0], given[0], bound):
        yield from _unify_all(wanted[1:], given[1:], found)


def substituted(code: Code, node: Node, values: Mapping[str, str]) -> str:
    """A node's text with variables replaced, in parentheses where they are more than a word."""
    edits = [
        Edit(n.start_byte - node.start_byte, n.end_byte - node.start_byte, _placed(n, values[text_of(n)]))
        for n in of_type(node, "identifier")
        if text_of(n) in values
    ]
    return Code(code.of(node)).edited(edits).text


def _placed(node: Node, text: str) -> str:
    """An expression's text in the place of a variable."""
    if node.parent is not None and node.parent.type in ("argument_list", "parenthesized_expression"):
        return text
    return text if re.fullmatch(r"[\w.]+(?:\[[^][]*\])?|\([^()]*\)", text) else f"({text})"

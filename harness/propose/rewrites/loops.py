"""Loops and declarations of a kernel, as far as rewrites need to understand them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.tree import Code, identifiers, match, of_type, statements, text_of

_JUMPS = ("return_statement", "goto_statement", "break_statement", "continue_statement")


@dataclass(frozen=True)
class Loop:
    """`for (type var = begin; var < end; var += step) body`; `step` is "1" for ++var."""

    node: Node
    type: str
    var: str
    begin: Node
    end: Node
    step: str
    body: Node

    @property
    def statements(self) -> list[Node]:
        """Of its body."""
        return statements(self.body)

    @property
    def jumps(self) -> bool:
        """Whether something in it leaves its iteration early."""
        return bool(of_type(self.body, *_JUMPS))

    @property
    def head(self) -> str:
        """Its first line's text, to compare with another's."""
        return f"{self.type} {self.var} {text_of(self.begin)} {text_of(self.end)} {self.step}"


def loop_of(node: Node) -> Loop | None:
    """A `for` statement that counts upwards, as a Loop; None for any other node."""
    if node.type != "for_statement":
        return None
    start, condition, update, body = map(node.child_by_field_name, ("initializer", "condition", "update", "body"))
    if start is None or condition is None or update is None or body is None or start.type != "declaration":
        return None
    found = [n for n in start.named_children if n.type == "init_declarator"]
    if len(found) != 1 or condition.type != "binary_expression" or len(condition.children) != 3:
        return None
    name, value = found[0].child_by_field_name("declarator"), found[0].child_by_field_name("value")
    if name is None or value is None or name.type != "identifier":
        return None
    var = text_of(name)
    left, operator, right = condition.children
    step = _step(update, var)
    if text_of(left) != var or text_of(operator) != "<" or step is None:
        return None
    kind = start.child_by_field_name("type")
    return Loop(node, text_of(kind) if kind else "long", var, value, right, step, body)


def _step(update: Node, var: str) -> str | None:
    text = "".join(text_of(update).split())
    if text in (f"++{var}", f"{var}++"):
        return "1"
    return text.removeprefix(f"{var}+=") if text.startswith(f"{var}+=") else None


def loops(node: Node) -> Iterator[Loop]:
    """The counting loops at or below `node`, outer ones first."""
    for found in of_type(node, "for_statement"):
        if (loop := loop_of(found)) is not None:
            yield loop


def innermost(node: Node) -> Iterator[Loop]:
    """The counting loops that hold no loop."""
    for loop in loops(node):
        if not of_type(loop.body, "for_statement", "while_statement", "do_statement", "lambda_expression"):
            yield loop


@dataclass(frozen=True)
class Declared:
    """One variable of a declaration: `text` declares it alone."""

    name: str
    text: str
    value: Node | None
    plain: bool  # neither pointer, array nor reference


def declared(code: Code, node: Node) -> list[Declared]:
    """The variables that a statement declares; [] when it is no declaration of variables."""
    if node.type != "declaration":
        return []
    declarators = node.children_by_field_name("declarator")
    if not declarators:
        return []
    kind = code.between(node.start_byte, declarators[0].start_byte).strip()
    return [_one(code, kind, declarator) for declarator in declarators]


def _one(code: Code, kind: str, node: Node) -> Declared:
    inner = node.child_by_field_name("declarator") if node.type == "init_declarator" else node
    value = node.child_by_field_name("value") if node.type == "init_declarator" else None
    inner = inner or node
    names = of_type(inner, "identifier")
    name = text_of(names[0]) if names else ""
    return Declared(name, f"{kind} {code.of(node)};", value, inner.type == "identifier")


def element_type(code: Code, name: str, before: Node) -> str | None:
    """The type of a variable, or of what it points to, by its last declaration in front of a node."""
    found = None
    for node in of_type(code.root, "declaration", "parameter_declaration"):
        declarator = node.child_by_field_name("declarator")
        names = [d.name for d in declared(code, node)]
        if node.type == "parameter_declaration" and declarator is not None:
            names = [text_of(n) for n in of_type(declarator, "identifier")]
        if node.start_byte < before.start_byte and name in names:
            found = node.child_by_field_name("type")
    return text_of(found) if found is not None else None


def assigned(nodes: Iterable[Node]) -> set[str]:
    """The variables that are changed at or below the nodes, as a whole or in part."""
    names = set[str]()
    for node in nodes:
        for found in of_type(node, "assignment_expression", "update_expression"):
            target = found.child_by_field_name("left") or found.child_by_field_name("argument")
            if target is not None:
                names |= {text_of(n) for n in of_type(target, "identifier")[:1]}
        for found in of_type(node, "pointer_expression"):
            if text_of(found).startswith("&"):
                names |= identifiers(found)
    return names


def only_own_elements(loop: Loop, names: set[str]) -> bool:
    """Whether each use of `names` in a loop is of the element of its own iteration."""
    for node in of_type(loop.body, "identifier"):
        if text_of(node) in names:
            bound = match("$array[$i]", node.parent) if node.parent is not None else None
            if bound is None or text_of(bound["$array"]) != text_of(node) or text_of(bound["$i"]) != loop.var:
                return False
    return True


def indented(text: str, by: str = "    ") -> str:
    """A text's lines moved right; its preprocessor lines stay."""
    return "\n".join(f"{by}{line}" if line.strip() and not line.startswith("#") else line for line in text.split("\n"))


def indent_of(code: Code, node: Node) -> str:
    """The blanks before a node's line."""
    start = code.bytes.rfind(b"\n", 0, node.start_byte) + 1
    line = code.bytes[start : node.start_byte].decode()
    return line[: len(line) - len(line.lstrip())]


def at_margin(text: str, code: Code, node: Node) -> str:
    """A text that stands in the place of a node, as if the node's line began at the margin."""
    blanks = indent_of(code, node)
    first, *rest = text.split("\n")
    return "\n".join([first, *(line.removeprefix(blanks) for line in rest)])


def dedented(code: Code, node: Node) -> str:
    """A node's text as if its line began at the margin."""
    return at_margin(code.of(node), code, node)


def in_place_of(node: Node, code: Code, lines: list[str]) -> str:
    """Lines that take a statement's place, as deep as it was."""
    return indented("\n".join(lines), indent_of(code, node)).lstrip()

"""Helper functions of a kernel: found, and put in the place of their calls."""

from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.loops import assigned, declared
from harness.propose.rewrites.tree import Code, Edit, expression, of_type, statements, substituted, text_of


@dataclass(frozen=True)
class Function:
    """A function with a name, parameters that have names, and a block."""

    node: Node
    name: str
    parameters: tuple[str, ...]
    statements: list[Node]


def functions(code: Code) -> Iterator[Function]:
    """The functions of a unit, in order."""
    for node in code.root.named_children:
        if node.type != "function_definition":
            continue
        declarator, body = node.child_by_field_name("declarator"), node.child_by_field_name("body")
        found = of_type(declarator, "function_declarator") if declarator is not None else []
        name = found[0].child_by_field_name("declarator") if found else None
        if name is None or name.type != "identifier" or body is None or body.type != "compound_statement":
            continue
        parameters = found[0].child_by_field_name("parameters")
        given = [n for n in parameters.named_children if n.type == "parameter_declaration"] if parameters else []
        names = [of_type(n, "identifier") for n in given]
        if all(names):
            yield Function(node, text_of(name), tuple(text_of(n[-1]) for n in names), statements(body))


def calls(node: Node, name: str) -> list[Node]:
    """The calls of a function at or below `node`."""
    found = []
    for call in of_type(node, "call_expression"):
        function = call.child_by_field_name("function")
        if function is not None and function.type == "identifier" and text_of(function) == name:
            found.append(call)
    return found


def arguments(call: Node) -> list[Node]:
    """What a call is given."""
    given = call.child_by_field_name("arguments")
    return [n for n in given.named_children if n.type != "comment"] if given is not None else []


def with_comment(node: Node) -> int:
    """Where a node begins, the comments directly above it included."""
    start = node
    while (above := start.prev_named_sibling) is not None and above.type == "comment":
        if above.end_point[0] != start.start_point[0] - 1:
            break
        start = above
    return start.start_byte


def result(code: Code, function: Function) -> str | None:
    """What a function returns, as one expression of its parameters; None where it is more than declarations and a
    `return`."""
    if not function.statements:
        return None
    *before, last = function.statements
    if last.type != "return_statement" or last.named_child_count != 1:
        return None
    values = dict[str, str]()
    for statement in before:
        found = declared(code, statement)
        if not found or any(d.value is None for d in found):
            return None
        values |= {d.name: substituted(code, d.value, values) for d in found if d.value is not None}
    if assigned(function.statements):
        return None
    return substituted(code, last.named_children[0], values)


def inlined(code: Code, function: Function) -> Code | None:
    """The unit with each call of `function` replaced by its result, and without the function."""
    found = result(code, function)
    value = expression(found) if found is not None else None
    if value is None:
        return None
    edits = [Edit(with_comment(function.node), function.node.end_byte, "")]
    for call in calls(code.root, function.name):
        given = [code.of(n) for n in arguments(call)]
        if len(given) != len(function.parameters):
            return None
        text = substituted(*value, dict(zip(function.parameters, given, strict=True)))
        edits.append(Edit.of(call, text))
    return code.edited(edits)

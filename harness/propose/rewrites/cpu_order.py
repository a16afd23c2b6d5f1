"""Rewrites of the order in which a CPU kernel's outputs and matrices are walked."""

from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.cpu_products import PRODUCT
from harness.propose.rewrites.functions import calls
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import (
    Declared,
    Loop,
    assigned,
    declared,
    dedented,
    indented,
    loop_of,
    loops,
)
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, find, identifiers, match, of_type, substituted, text_of


class CutIntoPieces(Rewrite):
    """See `hypothesis`."""

    name = "cut_into_pieces"
    hypothesis = (
        "The outputs of one row of activations in one loop, and what they share computed before it: no division an"
        " output, and a loop that several rows of weights can be taken through."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, body = kernel.code, kernel.body_block
        loop = next((found for found in loops(body) if _over_share(found)), None) if body is not None else None
        length = _divisor(loop) if loop is not None else None
        if loop is None or length is None or of_type(loop.body, "return_statement", "break_statement"):
            return None
        if any(
            n.type == "continue_statement" and _loop_around(n) == loop.node
            for n in of_type(loop.body, "continue_statement")
        ):
            return None
        return kernel.with_code(code.edited([Edit.of(loop.node, _pieces(code, loop, length))]))


def _over_share(loop: Loop) -> bool:
    """Whether a loop walks `range.begin` to `range.end` with a constant step of one."""
    begin, end = match("$range.begin", loop.begin), match("$range.end", loop.end)
    same = begin and end and text_of(begin["$range"]) == text_of(end["$range"])
    return bool(same) and loop.step == "1" and loop.body.type == "compound_statement"


def _divisor(loop: Loop) -> str | None:
    """The constant that the loop's variable is first divided by."""
    for found in ("$i / $length", "$i % $length"):
        for _, bound in find(found, loop.body):
            length = text_of(bound["$length"])
            if text_of(bound["$i"]) == loop.var and length.isupper() and length.isidentifier():
                return length
    return None


def _loop_around(node: Node) -> Node | None:
    parent = node.parent
    while parent is not None and parent.type not in ("for_statement", "while_statement", "do_statement"):
        parent = parent.parent
    return parent


def _pieces(code: Code, loop: Loop, length: str) -> str:
    """The loop as in_pieces of `length`."""
    piece, part, at = code.fresh("piece"), code.fresh("part"), code.fresh("at")
    divided = {n.id: piece for n, b in find(f"$i / {length}", loop.body) if text_of(b["$i"]) == loop.var}
    divided |= {n.id: at for n, b in find(f"$i % {length}", loop.body) if text_of(b["$i"]) == loop.var}
    changed, varying = assigned(loop.statements), {loop.var, at}
    outer, inner = list[str](), list[str]()
    for statement in loop.statements:
        for text, given in _split(code, statement, divided):
            names = {n for n in Code(text).names()}
            fixed = given is not None and given.value is not None and not names & (varying | changed)
            if fixed and not calls(statement, PRODUCT):
                outer.append(text)
            else:
                inner.append(text)
                varying |= {given.name} if given is not None else set()
    index = [f"const long {loop.var} = {piece} * {length} + {at};"] if _named(loop.var, inner) else []
    if index and inner and inner[0] == index[0]:
        index = []
    return "\n".join(
        [
            f"in_pieces({_range(loop)}, {length}, [&](long {piece}, Range {part}) {{",
            *(indented(text) for text in outer),
            f"    for (long {at} = {part}.begin; {at} < {part}.end; ++{at}) {{",
            *(indented(text, " " * 8) for text in [*index, *inner]),
            "    }",
            "});",
        ]
    )


def _range(loop: Loop) -> str:
    bound = match("$range.begin", loop.begin)
    assert bound is not None
    return text_of(bound["$range"])


def _named(name: str, texts: list[str]) -> bool:
    return any(name in Code(text).names() for text in texts)


def _split(code: Code, statement: Node, replaced: dict[int, str]) -> list[tuple[str, Declared | None]]:
    """A statement's text, a declaration's variables one by one, with nodes replaced."""
    found = declared(code, statement)
    if not found:
        return [(_replaced(code, statement, replaced), None)]
    declarators = statement.children_by_field_name("declarator")
    kind = code.between(statement.start_byte, declarators[0].start_byte)
    texts = [f"{kind}{_replaced(code, node, replaced)};" for node in declarators]
    return list(zip(texts, found, strict=True))


def _replaced(code: Code, node: Node, replaced: dict[int, str]) -> str:
    edits, stack = list[Edit](), [node]
    while stack:
        current = stack.pop()
        if current.id in replaced:
            edits.append(Edit.of(current, replaced[current.id]))
        else:
            stack += current.children
    text = Code(code.text).edited(edits) if edits else code
    end = node.end_byte + sum(len(e.text.encode()) - (e.end - e.start) for e in edits)
    cut = text.between(node.start_byte, end)
    return dedented(code, node) if not edits else _margin(cut, code, node)


def _margin(text: str, code: Code, node: Node) -> str:
    start = code.bytes.rfind(b"\n", 0, node.start_byte) + 1
    line = code.bytes[start : node.start_byte].decode()
    blanks = line[: len(line) - len(line.lstrip())]
    first, *rest = text.split("\n")
    return "\n".join([first, *(part.removeprefix(blanks) for part in rest)])


@dataclass(frozen=True)
class _Sum:
    """A sum over an inner loop within a loop over outputs: its declaration, the loop, and what follows."""

    name: str
    start: Node
    loop: Loop
    after: list[Node]


class OneMatrixAtATime(Rewrite):
    """See `hypothesis`."""

    name = "one_matrix_at_a_time"
    hypothesis = (
        "The rows of one matrix after another, as they lie in memory, come faster than those of several matrices in"
        " turn: fewer streams for the prefetcher, fewer pages for the TLB."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, body = kernel.code, kernel.body_block
        for loop in loops(body) if body is not None else ():
            size = _size(code, loop)
            if size is None or loop.jumps or loop.body.type != "compound_statement":
                continue
            text = _parted(code, loop, size) or _interchanged(code, loop, size)
            if text is not None:
                return kernel.with_code(code.edited([Edit.of(loop.node, text)]))
        return None


def _size(code: Code, loop: Loop) -> str | None:
    """How many outputs a loop over a part of a piece (`in_pieces`) may have at most, as text."""
    lambda_ = loop.node.parent.parent if loop.node.parent is not None else None
    given = lambda_.parent if lambda_ is not None and lambda_.type == "lambda_expression" else None
    call = given.parent if given is not None else None
    if call is None or call.type != "call_expression" or not text_of(call).startswith("in_pieces(") or given is None:
        return None
    listed = [n for n in given.named_children if n.type != "comment"]
    return code.of(listed[1]) if len(listed) == 3 and _over_share(loop) else None


def _parted(code: Code, loop: Loop, size: str) -> str | None:
    """A loop with several products as one loop for each."""
    holding = [n for n in loop.statements if calls(n, PRODUCT)]
    if len(holding) < 2 or not all(len(declared(code, n)) == 1 and declared(code, n)[0].plain for n in holding):
        return None
    if any(text_of(n.child_by_field_name("type") or n) != "float" for n in holding):
        return None
    others = [n for n in loop.statements if n not in holding]
    shared = [n for n in others if declared(code, n) and n.start_byte < holding[-1].start_byte]
    names = {declared(code, n)[0].name: f"{code.fresh(declared(code, n)[0].name + 's')}" for n in holding}
    if assigned(loop.statements) & {*names, *(d.name for n in shared for d in declared(code, n))}:
        return None
    if any(not declared(code, n) and n.start_byte < holding[-1].start_byte for n in others):
        return None
    head = _head(code, loop)
    out = [f"float {array}[{size}];" for array in names.values()]
    for node, (name, array) in zip(holding, names.items(), strict=True):
        before = {n: f"{names[n]}[{loop.var}]" for n in names if n != name}
        value = declared(code, node)[0].value
        assert value is not None
        needed = [dedented(code, n) for n in shared if _needs(code, n, [node, *shared])]
        out += [head, *map(indented, needed), f"    {array}[{loop.var}] = {substituted(code, value, before)};", "}"]
    values = {name: f"{array}[{loop.var}]" for name, array in names.items()}
    rest = [n for n in others if n not in shared or _needs(code, n, others)]
    out += [head, *(indented(_margin(substituted(code, n, values), code, n)) for n in rest), "}"]
    return indented("\n".join(out)).lstrip()


def _needs(code: Code, declaration: Node, users: list[Node]) -> bool:
    """Whether another of the statements names what a declaration declares."""
    names = {d.name for d in declared(code, declaration)}
    return any(names & identifiers(n) for n in users if n != declaration)


def _head(code: Code, loop: Loop) -> str:
    return f"{code.between(loop.node.start_byte, loop.body.start_byte).rstrip()} {{"


def _sum_of(code: Code, loop: Loop) -> tuple[list[Node], _Sum] | None:
    """What stands before a sum over an inner loop, and the sum."""
    for place, node in enumerate(loop.statements):
        inner = loop_of(node)
        if inner is None or place == 0 or not calls(node, PRODUCT):
            continue
        start = declared(code, loop.statements[place - 1])
        if len(start) != 1 or start[0].value is None or not start[0].plain:
            return None
        before, after = loop.statements[: place - 1], loop.statements[place + 1 :]
        return before, _Sum(start[0].name, loop.statements[place - 1], inner, after)
    return None


def _interchanged(code: Code, loop: Loop, size: str) -> str | None:
    """A sum over matrices for each output as a sum over outputs for each matrix."""
    found = _sum_of(code, loop)
    if found is None or not found[1].loop.statements:
        return None
    before, total = found
    *given, last = total.loop.statements
    names = {d.name for n in before for d in declared(code, n)} | {loop.var}
    if match("$sum += $term", last) is None or assigned([total.loop.body]) != {total.name}:
        return None
    if not all(declared(code, n) for n in [*before, *given]) or loop.var in {
        d.name for n in given for d in declared(code, n)
    }:
        return None
    if names & (identifiers(total.loop.begin) | identifiers(total.loop.end)):
        return None
    return _matrix_by_matrix(code, loop, size, before, total)


def _matrix_by_matrix(code: Code, loop: Loop, size: str, before: list[Node], total: _Sum) -> str:
    """See `_interchanged`; `before` are declarations that the outputs' loop begins with."""
    *given, last = total.loop.statements
    array, head = code.fresh(f"{total.name}s"), _head(code, loop)
    value = {total.name: f"{array}[{loop.var}]"}
    start = declared(code, total.start)[0].value
    outer, inner = _hoisted(code, given, {loop.var, *(d.name for n in before for d in declared(code, n))})
    kept = [dedented(code, n) for n in before]
    lines = [
        f"float {array}[{size}];",
        f"{head[:-2]} {array}[{loop.var}] = {code.of(start) if start is not None else 0};",
        _head(code, total.loop),
        *map(indented, outer),
        indented(head),
        *(indented(text, " " * 8) for text in [*_used(kept, [*inner, code.of(last)]), *inner]),
        indented(_margin(substituted(code, last, value), code, last), " " * 8),
        "    }",
        "}",
        head,
        *map(indented, _used(kept, [code.of(n) for n in total.after])),
        *(indented(_margin(substituted(code, n, value), code, n)) for n in total.after),
        "}",
    ]
    return indented("\n".join(lines)).lstrip()


def _hoisted(code: Code, declarations: list[Node], varying: set[str]) -> tuple[list[str], list[str]]:
    """The declarations that name nothing that varies, and the others."""
    outer, inner, varying = list[str](), list[str](), set(varying)
    for node in declarations:
        if identifiers(node) & varying:
            inner.append(dedented(code, node))
            varying |= {d.name for d in declared(code, node)}
        else:
            outer.append(dedented(code, node))
    return outer, inner


def _used(declarations: list[str], users: list[str]) -> list[str]:
    """The declarations, all of them if one of their names may be used."""
    text = Code("\n".join(users)).names()
    return [d for d in declarations if Code(d).names() & text]

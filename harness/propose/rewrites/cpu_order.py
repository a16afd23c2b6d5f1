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
    at_margin,
    declared,
    dedented,
    in_place_of,
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
    outer, inner = _by_piece(code, loop, length, piece, at)
    index = f"const long {loop.var} = {piece} * {length} + {at};"
    if loop.var in Code("\n".join(inner)).names():
        inner.insert(0, index)
    lines = [
        f"in_pieces({_range(loop)}, {length}, [&](long {piece}, Range {part}) {{",
        *map(indented, outer),
        f"    for (long {at} = {part}.begin; {at} < {part}.end; ++{at}) {{",
        *(indented(text, " " * 8) for text in inner),
        "    }",
        "});",
    ]
    return in_place_of(loop.node, code, lines)


def _by_piece(code: Code, loop: Loop, length: str, piece: str, at: str) -> tuple[list[str], list[str]]:
    """The declarations that are the same for a whole piece, and the statements for each output."""
    replaced = {n.id: piece for n, b in find(f"$i / {length}", loop.body) if text_of(b["$i"]) == loop.var}
    replaced |= {n.id: at for n, b in find(f"$i % {length}", loop.body) if text_of(b["$i"]) == loop.var}
    changed, varying = assigned(loop.statements), {loop.var, at}
    outer, inner = list[str](), list[str]()
    for statement in loop.statements:
        for text, one in _split(code, statement, replaced):
            fixed = one is not None and one.value is not None and not Code(text).names() & (varying | changed)
            if fixed and not calls(statement, PRODUCT):
                outer.append(text)
            else:
                inner.append(text)
                varying |= {one.name} if one is not None else set()
    return outer, inner


def _range(loop: Loop) -> str:
    bound = match("$range.begin", loop.begin)
    assert bound is not None
    return text_of(bound["$range"])


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
    """A node's text at the margin, with nodes in it replaced."""
    edits, stack = list[Edit](), [node]
    while stack:
        current = stack.pop()
        if current.id in replaced:
            start, end = current.start_byte - node.start_byte, current.end_byte - node.start_byte
            edits.append(Edit(start, end, replaced[current.id]))
        else:
            stack += current.children
    return at_margin(Code(code.of(node)).edited(edits).text, code, node)


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
    """A loop with several products as one loop for each, and one for what is made of them."""
    holding = [n for n in loop.statements if calls(n, PRODUCT)]
    others = [n for n in loop.statements if n not in holding]
    if len(holding) < 2 or not all(_is_float(code, n) for n in holding):
        return None
    early = [n for n in others if n.start_byte < holding[-1].start_byte]
    arrays = {name: code.fresh(f"{name}s") for name in (declared(code, n)[0].name for n in holding)}
    declarations = {d.name for n in early for d in declared(code, n)}
    if not all(declared(code, n) for n in early) or assigned(loop.statements) & {*arrays, *declarations}:
        return None
    values = {name: f"{array}[{loop.var}]" for name, array in arrays.items()}
    lines = [f"float {array}[{size}];" for array in arrays.values()]
    for node, array in zip(holding, arrays.values(), strict=True):
        needed = [dedented(code, n) for n in early if _needs(code, n, [node, *early])]
        value = declared(code, node)[0].value or node
        text = at_margin(substituted(code, value, values), code, node)
        lines += [_head(code, loop), *map(indented, needed), indented(f"{array}[{loop.var}] = {text};"), "}"]
    rest = [n for n in others if n not in early or _needs(code, n, others)]
    texts = [at_margin(substituted(code, n, values), code, n) for n in rest]
    return in_place_of(loop.node, code, [*lines, _head(code, loop), *map(indented, texts), "}"])


def _is_float(code: Code, node: Node) -> bool:
    """Whether a statement declares one float, with a value."""
    found, kind = declared(code, node), node.child_by_field_name("type")
    plain = len(found) == 1 and found[0].plain and found[0].value is not None
    return plain and kind is not None and text_of(kind) == "float"


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
        indented(at_margin(substituted(code, last, value), code, last), " " * 8),
        "    }",
        "}",
        head,
        *map(indented, _used(kept, [code.of(n) for n in total.after])),
        *(indented(at_margin(substituted(code, n, value), code, n)) for n in total.after),
        "}",
    ]
    return in_place_of(loop.node, code, lines)


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

"""The rewrite that takes several outputs of a CPU kernel at a time."""

from dataclasses import dataclass, field, replace

from tree_sitter import Node

from harness.propose.rewrites.cpu_inputs import template_arguments
from harness.propose.rewrites.cpu_products import PRODUCT
from harness.propose.rewrites.functions import arguments, calls
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import (
    Declared,
    Loop,
    declared,
    dedented,
    in_place_of,
    indented,
    loop_of,
    loops,
)
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, inside, match, of_type, substituted, text_of

_WHOLE = ("long", "int", "size_t")
_FLOATS = ("float", "vfloat")
_REFUSED = (
    "return_statement",
    "break_statement",
    "continue_statement",
    "goto_statement",
    "while_statement",
    "do_statement",
)


class SeveralRows(Rewrite):
    """See `hypothesis`."""

    name = "several_rows"
    hypothesis = (
        "ROWS outputs side by side share what they load of the activations, and while one waits for its sum the others"
        " compute; too many spill the registers."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, body = kernel.code, kernel.body_block
        if body is None or "ROWS" in code.names():
            return None
        edits = list[Edit]()
        for loop in loops(body):
            if any(e.start <= loop.node.start_byte < e.end for e in edits):
                continue
            text = _jammed(code, loop)
            if text is not None:
                edits.append(Edit.of(loop.node, text))
        return kernel.with_tunable("ROWS", [2, 1, 4]).with_code(code.edited(edits)) if edits else None


@dataclass
class _Jam:
    """A loop's statements for several values of its variable at a time.

    fixed: the text of each declaration that is made again for each row, by name. rows: variables that have become
    arrays, one element a row. varying: names whose value differs from row to row.
    """

    code: Code
    loop: Loop
    names: dict[str, str]
    prefetch: str
    fixed: dict[str, str] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    varying: set[str] = field(default_factory=set)
    products: int = 0

    def block(self, lines: list[str]) -> list[str]:
        """The lines once for each row."""
        row, first = self.names["row"], self.names["first"]
        needed, seen = list[str](), Code("\n".join(lines)).names()
        for name, text in reversed(self.fixed.items()):
            if name in seen:
                needed.insert(0, text)
                seen |= Code(text).names()
        index = [f"const long {self.loop.var} = {first} + {row};"] if self.loop.var in seen else []
        inner = [indented(line) for line in [*index, *needed, *lines]]
        head = f"unrolled<{self.names['rows']}>([&](auto {row}) __attribute__((always_inline)) {{"
        return [head, *inner, "});"]

    def text(self, node: Node) -> str:
        """A node with the rows' own variables."""
        return substituted(self.code, node, {name: f"{name}[{self.names['row']}]" for name in self.rows})

    def varies(self, node: Node) -> bool:
        """Whether a node names what differs from row to row."""
        return bool(Code(text_of(node)).names() & (self.varying | self.rows))


def _jammed(code: Code, loop: Loop) -> str | None:
    """A loop over outputs as in_steps_of ROWS; None where its body is more than declarations, loops and sums."""
    begin, end = match("$range.begin", loop.begin), match("$range.end", loop.end)
    if begin is None or end is None or text_of(begin["$range"]) != text_of(end["$range"]) or loop.step != "1":
        return None
    if of_type(loop.body, *_REFUSED) or not (calls(loop.body, PRODUCT) or _is_outermost_work(loop)):
        return None
    given = [g for n in ("packed_dots",) for _, g in template_arguments(code, n, "template_function") if len(g) == 2]
    names = {name: code.fresh(name) for name in ("rows", "first", "row", "packed", "dots")}
    jam = _Jam(code, loop, names, text_of(given[0][1]) if given else "0", varying={loop.var})
    lines = _statements(jam, loop.statements)
    if lines is None:
        return None
    head = f"in_steps_of<ROWS>({text_of(begin['$range'])}, [&](auto {names['rows']}, long {names['first']}) {{"
    return in_place_of(loop.node, code, [head, *map(indented, lines), "});"])


def _is_outermost_work(loop: Loop) -> bool:
    """Whether a loop holds loops, all of them innermost: an output takes a pass over a row."""
    inner = list(loops(loop.body))
    return bool(inner) and not any(PRODUCT in text_of(found.node) for found in inner)


def _statements(jam: _Jam, nodes: list[Node]) -> list[str] | None:
    lines, simple = list[str](), list[str]()
    for node in nodes:
        made = _statement(jam, node)
        if made is None:
            return None
        ahead, here = made
        if ahead:
            lines += [*(jam.block(simple) if simple else []), *ahead]
            simple = []
        simple += here
    return lines + (jam.block(simple) if simple else [])


def _statement(jam: _Jam, node: Node) -> tuple[list[str], list[str]] | None:
    """What has to be done before, for all rows, and what is left to do for each."""
    if given := declared(jam.code, node):
        return _declaration(jam, node, given)
    if node.type == "for_statement":
        loop = loop_of(node)
        return _loop(jam, loop) if loop is not None else None
    if node.type != "expression_statement" or of_type(node, "lambda_expression"):
        return None
    return _with_products(jam, node)


def _declaration(jam: _Jam, node: Node, given: list[Declared]) -> tuple[list[str], list[str]] | None:
    kind = text_of(node.child_by_field_name("type") or node)
    ahead, here = list[str](), list[str]()
    changed = _reassigned(jam.loop)
    for one in given:
        pointer = not one.plain and one.value is not None and "*" in one.text.split("=")[0]
        if one.name not in changed and one.value is not None and (pointer or (one.plain and kind in _WHOLE)):
            if calls(one.value, PRODUCT) or jam.rows & Code(text_of(one.value)).names():
                return None
            jam.fixed[one.name] = one.text
            jam.varying |= {one.name} if jam.varies(one.value) else set()
        elif one.plain and kind in _FLOATS and one.value is not None:
            made = _with_products(jam, one.value)
            if made is None:
                return None
            empty = one.value.type == "initializer_list"
            ahead += [*made[0], f"{kind} {one.name}[{jam.names['rows']}]{' = {}' if empty else ''};"]
            jam.rows.add(one.name)
            here += [] if empty else [f"{one.name}[{jam.names['row']}] = {made[1][0]};"]
        else:
            return None
    return ahead, here


def _reassigned(loop: Loop) -> set[str]:
    """The variables that are changed as a whole."""
    found = set[str]()
    for node in of_type(loop.body, "assignment_expression", "update_expression"):
        target = node.child_by_field_name("left") or node.child_by_field_name("argument")
        if target is not None and target.type == "identifier":
            found.add(text_of(target))
    return found


def _loop(jam: _Jam, loop: Loop) -> tuple[list[str], list[str]] | None:
    if jam.varies(loop.begin) or jam.varies(loop.end) or _needs_fixed(jam, loop):
        return None
    inner = replace(jam, fixed=dict(jam.fixed), rows=set(jam.rows), varying=set(jam.varying))
    lines = _statements(inner, loop.statements)
    if lines is None:
        return None
    jam.products = inner.products
    head = jam.code.between(loop.node.start_byte, loop.body.start_byte).rstrip()
    return [f"{head} {{", *map(indented, lines), "}"], []


def _needs_fixed(jam: _Jam, loop: Loop) -> bool:
    """Whether a loop's bounds name a declaration that is made again for each row."""
    return bool({*Code(text_of(loop.begin)).names(), *Code(text_of(loop.end)).names()} & {*jam.fixed})


def _with_products(jam: _Jam, node: Node) -> tuple[list[str], list[str]] | None:
    """An expression or a statement, its products with staged activations made for all rows ahead of it."""
    ahead, places = list[str](), list[tuple[Node, str]]()
    names = jam.names
    for call in calls(node, PRODUCT):
        input_, row = arguments(call)
        if jam.varies(input_) or {*Code(text_of(input_)).names()} & {*jam.fixed}:
            return None
        number = str(jam.products or "")
        packed, dots = f"{names['packed']}{number}", f"{names['dots']}{number}"
        jam.products += 1
        ahead += [f"PackedRow<S> {packed}[{names['rows']}];"]
        ahead += jam.block([f"{packed}[{names['row']}] = {jam.text(row)};"])
        ahead += [f"float {dots}[{names['rows']}][1];"]
        ahead += [f"packed_dots<1, {jam.prefetch}>(&{jam.code.of(input_)}, {packed}, {dots});"]
        places.append((call, f"{dots}[{names['row']}][0]"))
    return ahead, [_replaced(jam, node, places)]


def _replaced(jam: _Jam, node: Node, places: list[tuple[Node, str]]) -> str:
    """A node's text with the rows' own variables, and other nodes replaced."""
    edits = [Edit.of(call, text) for call, text in places]
    edits += [
        Edit.of(n, f"{text_of(n)}[{jam.names['row']}]")
        for n in of_type(node, "identifier")
        if text_of(n) in jam.rows and not any(inside(n, call) for call, _ in places)
    ]
    shifted = [Edit(e.start - node.start_byte, e.end - node.start_byte, e.text) for e in edits]
    return Code(jam.code.of(node)).edited(shifted).text if shifted else dedented(jam.code, node)

"""The rewrite that keeps the elements of a row in registers from one vector loop to the next."""

from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import Loop, dedented, in_place_of, indented, loop_of, loops
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, bare, find, identifiers, match, text_of


class KeepInRegisters(Rewrite):
    """See `hypothesis`."""

    name = "keep_in_registers"
    hypothesis = (
        "What one loop stores and the next one loads again fits the vector registers: both loops as straight code keep"
        " it there, and each element goes to memory once."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code = kernel.code
        for loop in loops(code.root):
            pair = _pair(loop)
            if pair is not None:
                kept, first, second = code.fresh(f"{pair.array}_kept"), pair.first, pair.second
                part = code.fresh("part")
                count = f"{pair.size} / LANES"
                store = {pair.store.id: f"{kept}[{part}] = {pair.vector}"}
                loads = {node.id: f"{kept}[{part}]" for node in pair.loads}
                before = f"vfloat {kept}[{count}];"
                edits = [Edit.of(first.node, _straight(code, first, (count, part), store, before))]
                edits.append(Edit.of(second.node, _straight(code, second, (count, part), loads)))
                return kernel.with_code(code.edited(edits))
        return None


@dataclass(frozen=True)
class _Pair:
    """Two vector loops over `size` elements: the first's last act on `array` is to store a vector, which the second
    loads, and stores another one in its place."""

    array: str
    size: str
    first: Loop
    second: Loop
    store: Node
    vector: str
    loads: list[Node]


def _pair(first: Loop) -> _Pair | None:
    size, stores = _vector_size(first), _stores(first)
    if size is None or len(stores) != 1:
        return None
    ((array, (store, vector)),) = stores.items()
    node = first.node.next_named_sibling
    while node is not None:
        second = loop_of(node)
        if second is not None and second.head == first.head:
            loads = [n for n, _ in find(f"load_floats<LANES>({array} + {second.var})", second.body)]
            return (
                _Pair(array, size, first, second, store, vector, loads) if loads and array in _stores(second) else None
            )
        rest = match("$end / LANES * LANES", second.begin) if second is not None else None
        if array in identifiers(node) and rest is None:
            return None
        node = node.next_named_sibling
    return None


def _vector_size(loop: Loop) -> str | None:
    """The constant number of elements that a loop takes LANES at a time."""
    bound = match("$size / LANES * LANES", loop.end) if loop.step == "LANES" and text_of(loop.begin) == "0" else None
    size = text_of(bound["$size"]) if bound is not None else ""
    return size if size.isupper() and size.isidentifier() else None


def _stores(loop: Loop) -> dict[str, tuple[Node, str]]:
    """The arrays that a loop's own statements store a vector to, with the call and the vector's name."""
    found = dict[str, tuple[Node, str]]()
    for statement in loop.statements:
        bound = match(f"std::memcpy($array + {loop.var}, &$vector, sizeof($vector))", statement)
        if bound is not None:
            found[text_of(bound["$array"])] = bare(statement), text_of(bound["$vector"])
    return found


def _straight(code: Code, loop: Loop, turns: tuple[str, str], replaced: dict[int, str], before: str = "") -> str:
    """A vector loop as straight code, some of its nodes replaced; `turns`: how many, and the name of one's number."""
    count, part = turns
    lines = [before] if before else []
    lines.append(f"unrolled<{count}>([&](auto {part}) __attribute__((always_inline)) {{")
    lines.append(f"    const long {loop.var} = {part} * LANES;")
    for statement in loop.statements:
        edits = [
            Edit(n.start_byte - statement.start_byte, n.end_byte - statement.start_byte, replaced[n.id])
            for n in _nodes(statement)
            if n.id in replaced
        ]
        text = Code(code.of(statement)).edited(edits).text if edits else dedented(code, statement)
        lines.append(indented(text))
    return in_place_of(loop.node, code, [*lines, "});"])


def _nodes(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in _nodes(child))]

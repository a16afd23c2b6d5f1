"""Rewrites of plain loops over arrays of floats: joined where they walk the same elements, and taken a vector at a
time."""

from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import (
    Loop,
    assigned,
    declared,
    dedented,
    element_type,
    in_place_of,
    indent_of,
    indented,
    innermost,
    loop_of,
    only_own_elements,
)
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, bare, find, identifiers, match, of_type, text_of

_SUMS = ("+", "-", "*", "/")


class FuseLoops(Rewrite):
    """See `hypothesis`."""

    name = "fuse_loops"
    hypothesis = (
        "Loops over the same elements joined into one: an element is loaded once and stays in a register from one use"
        " to the next."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        fused, code = 0, kernel.code
        tunables = {*kernel.header.get("tunables", {})}
        while (edits := _fusion(code, tunables)) is not None:
            fused, code = fused + 1, code.edited(edits)
        return kernel.with_code(code) if fused else None


def _fusion(code: Code, tunables: set[str]) -> list[Edit] | None:
    """The edits that join the first two loops that may be, those over a tunable's few turns left out."""
    for first in innermost(code.root):
        if text_of(first.end) in tunables:
            continue
        between = list[Node]()
        node = first.node.next_named_sibling
        while node is not None and (node.type == "comment" or declared(code, node)):
            between += [node] if node.type != "comment" else []
            node = node.next_named_sibling
        second = loop_of(node) if node is not None else None
        if second is not None and _may_join(code, first, second, between):
            lines = [dedented(code, n) for n in between]
            inner = [dedented(code, n) for n in (*first.statements, *second.statements)]
            head = code.between(first.node.start_byte, first.body.start_byte).rstrip()
            text = in_place_of(first.node, code, [*lines, f"{head} {{", *map(indented, inner), "}"])
            return [Edit(first.node.start_byte, second.node.end_byte, text)]
    return None


def _may_join(code: Code, first: Loop, second: Loop, between: list[Node]) -> bool:
    """Whether no iteration of either needs what another iteration of the other does first, nor its declarations."""
    if first.head != second.head or first.jumps or second.jumps:
        return False
    if _unknown_calls(first) or _unknown_calls(second):
        return False
    changed = (assigned(first.statements), assigned(second.statements))
    names = {d.name for n in between for d in declared(code, n)}
    locals_ = {d.name for n in first.statements for d in declared(code, n)}
    if names & identifiers(first.node) or any(changed[0] & identifiers(n) for n in between):
        return False
    if locals_ & identifiers(second.node):
        return False
    shared = (changed[0] & identifiers(second.body)) | (changed[1] & identifiers(first.body))
    return all(only_own_elements(loop, shared) for loop in (first, second))


def _unknown_calls(loop: Loop) -> bool:
    """Whether a loop calls what may do more than give a value."""
    known = ("to_float", "float", "T", "fma", "std::fma")
    functions = [call.child_by_field_name("function") for call in of_type(loop.body, "call_expression")]
    return any(f is None or text_of(f) not in known for f in functions)


@dataclass(frozen=True)
class _Vectors:
    """A loop's body on vectors: its lines, and the sums that it adds to."""

    lines: list[str]
    sums: dict[str, str]


class Vectorise(Rewrite):
    """See `hypothesis`."""

    name = "vectorise"
    hypothesis = (
        "Sums of floats stay in their order unless the text says otherwise: a vector of partial sums, a lane each, lets"
        " one instruction do the work of as many additions as it has lanes, none of which waits for its neighbour."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, edits, taken = kernel.code, list[Edit](), set[str]()
        for loop in innermost(kernel.code.root):
            made = _vectors(code, loop, taken)
            if made is not None and text_of(loop.end) not in kernel.header.get("tunables", {}):
                edits.append(Edit.of(loop.node, _vector_loop(code, loop, made)))
                taken |= set(made.sums.values())
        return kernel.with_code(code.edited(edits)) if edits else None


def _vector_loop(code: Code, loop: Loop, made: _Vectors) -> str:
    """The loop over whole vectors, what is left one by one, and the sums of the lanes."""
    end, var = code.of(loop.end), loop.var
    lines = [f"vfloat {lanes} = {{}};" for lanes in made.sums.values()]
    lines += [
        f"for (long {var} = 0; {var} < {end} / LANES * LANES; {var} += LANES) {{",
        *map(indented, made.lines),
        "}",
    ]
    lines += [f"{name} += sum({lanes});" for name, lanes in made.sums.items()]
    rest = [dedented(code, n) for n in loop.statements]
    lines += [f"for (long {var} = {end} / LANES * LANES; {var} < {end}; ++{var}) {{", *map(indented, rest), "}"]
    return in_place_of(loop.node, code, lines)


def _vectors(code: Code, loop: Loop, taken: set[str]) -> _Vectors | None:
    """A loop's statements on vectors; None for a loop that is not made of elements, sums and declarations."""
    if text_of(loop.begin) != "0" or loop.step != "1" or not text_of(loop.end).isupper():
        return None
    lines, sums, own = list[str](), dict[str, str](), set[str]()
    stored = {text_of(b["$array"]) for _, b in find("$array[$i] = $value", loop.body)}
    stored |= {text_of(b["$array"]) for _, b in find("$array[$i] += $value", loop.body)}
    if not all(element_type(code, name, loop.node) == "float" for name in stored):
        return None
    words = _Words(code, loop, own, stored)
    for statement in loop.statements:
        made = _vector_statement(code, loop, statement, words, sums, taken)
        if made is None:
            return None
        lines += made
    return _Vectors(lines, sums) if lines else None


def _vector_statement(
    code: Code, loop: Loop, statement: Node, words: "_Words", sums: dict[str, str], taken: set[str]
) -> list[str] | None:
    if given := declared(code, statement):
        return _declarations(statement, given, words)
    for pattern, added in (("$array[$i] = $value", False), ("$array[$i] += $value", True)):
        bound = match(pattern, statement)
        if bound is not None and text_of(bound["$i"]) == loop.var and bound["$array"].type == "identifier":
            return _store(loop, text_of(bound["$array"]), bound["$value"], words, added)
    bound = match("$sum += $value", statement)
    if bound is None or bound["$sum"].type != "identifier" or text_of(bound["$sum"]) in identifiers(bound["$value"]):
        return None
    name, value = text_of(bound["$sum"]), words.vector(bound["$value"])
    if value is None or element_type(code, name, loop.node) != "float" or not words.varies(value):
        return None
    if name not in sums:
        lanes = code.fresh(f"{name}_lanes")
        sums[name] = lanes if lanes not in taken else f"{lanes}_{len(taken)}"
    return [f"{sums[name]} += {value};"]


def _store(loop: Loop, array: str, node: Node, words: "_Words", added: bool) -> list[str] | None:
    """A vector stored to an array, or added to what lies there."""
    value = words.vector(node)
    if value is None:
        return None
    text = f"{words.element(array)} + ({value})" if added else value
    text = text if words.varies(text) else f"vfloat{{}} + {text}"
    name = words.stored(array)
    return [f"const vfloat {name} = {text};", f"std::memcpy({array} + {loop.var}, &{name}, sizeof({name}));"]


def _declarations(statement: Node, given: list, words: "_Words") -> list[str] | None:  # type: ignore[type-arg]
    kind = statement.child_by_field_name("type")
    if kind is None or text_of(kind) != "float" or not all(d.plain and d.value is not None for d in given):
        return None
    lines = []
    for one in given:
        value = words.vector(one.value)
        if value is None or not words.varies(value):
            return None
        words.own.add(one.name)
        lines.append(f"const vfloat {one.name} = {value};")
    return lines


class _Words:
    """Expressions of one loop's body, as text on vectors."""

    def __init__(self, code: Code, loop: Loop, own: set[str], stored: set[str]) -> None:
        self.own = own  # the vectors that the body has declared
        self._code, self._loop, self._stored = code, loop, stored
        self._elements = dict[str, str]()  # the vectors that were stored, by array

    def stored(self, array: str) -> str:
        """A name for the vector that is stored to an array, and that it holds from now on."""
        name = self._code.fresh(f"{array}_new")
        while name in self.own:
            name += "er"
        self.own.add(name)
        self._elements[array] = name
        return name

    def element(self, array: str) -> str:
        """What an array holds."""
        return self._elements.get(array, f"load_floats<LANES>({array} + {self._loop.var})")

    def varies(self, text: str) -> bool:
        """Whether a text is a vector, and no single number."""
        return "load_floats<" in text or bool(Code(text).names() & self.own)

    def vector(self, node: Node) -> str | None:
        """An expression on vectors; None for what has no such form."""
        node = bare(node)
        names = identifiers(node)
        if not names & {self._loop.var, *self.own}:
            changed = self._stored | assigned(self._loop.statements)
            return None if names & changed or of_type(node, "update_expression") else text_of(node)
        if node.type == "identifier":
            return text_of(node) if text_of(node) in self.own else None
        for pattern in ("to_float($array[$i])", "$array[$i]"):
            bound = match(pattern, node)
            if bound is not None:
                plain = bound["$array"].type == "identifier" and text_of(bound["$i"]) == self._loop.var
                return self.element(text_of(bound["$array"])) if plain else None
        if node.type == "binary_expression" and text_of(node.children[1]) in _SUMS:
            sides = [self.vector(node.children[0]), self.vector(node.children[2])]
            left, right = (
                self._within(side, at) for side, at in zip(sides, (node.children[0], node.children[2]), strict=True)
            )
            return f"{left} {text_of(node.children[1])} {right}" if left and right else None
        return None

    def _within(self, text: str | None, node: Node) -> str | None:
        return f"({text})" if text is not None and bare(node).type == "binary_expression" else text


class PrefetchElements(Rewrite):
    """See `hypothesis`."""

    name = "prefetch_elements"
    hypothesis = (
        "Rows of floats lie one after the other in memory: asking for those some hundreds of floats ahead hides what"
        " the hardware's prefetcher misses where a page ends."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, edits = kernel.code, list[Edit]()
        if "AHEAD" in code.names():
            return None
        for loop in innermost(code.root):
            found = {text_of(b["$a"]) for _, b in find(f"load_floats<LANES>($a + {loop.var})", loop.body)}
            written = {text_of(b["$a"]) for _, b in find(f"std::memcpy($a + {loop.var}, $from, $size)", loop.body)}
            arrays = sorted(a for a in found - written if element_type(code, a, loop.node) == "float")
            lines = [f"__builtin_prefetch({a} + {loop.var} + AHEAD);" for a in arrays]
            if lines and loop.body.type == "compound_statement":
                start = loop.body.start_byte + 1
                edits.append(Edit(start, start, "\n" + indented("\n".join(lines), indent_of(code, loop.node) + "    ")))
        return kernel.with_tunable("AHEAD", [256, 128, 512, 1024]).with_code(code.edited(edits)) if edits else None

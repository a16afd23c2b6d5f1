"""Rewrites of Metal kernels that begin as one thread an output."""

import re
from collections.abc import Mapping
from typing import Any

from tree_sitter import Node

from harness.propose.rewrites.functions import Function, calls, functions
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import (
    Loop,
    assigned,
    declared,
    dedented,
    element_type,
    in_place_of,
    indented,
    loops,
    only_own_elements,
)
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, ancestors, find, identifiers, inside, match, of_type, text_of

_LANE, _GRID = "thread_index_in_simdgroup", "thread_position_in_grid"
_COOPERATING = re.compile(
    r"\b(?:simd_\w+|threadgroup_barrier|simdgroup_\w+|\w+_in_(?:threadgroup|simdgroup)|threads_per_\w+)\b"
)


class SimdGroupPerOutput(Rewrite):
    """See `hypothesis`."""

    name = "simd_group_per_output"
    targets = ("metal",)
    hypothesis = (
        "A SIMD group an output in place of a thread: its lanes read neighbouring words of one row, so that whole cache"
        " lines serve them, and each has a thirty-second of the chain of additions."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, launch = kernel.code, _widened(kernel.header)
        body = kernel.body_block
        if launch is None or body is None or _COOPERATING.search(code.text):
            return None
        positions = [node for node, _ in find(f"{_GRID}.x", code.root)]
        edits = [Edit.of(node, f"({code.of(node)} / 32)") for node in positions if inside(node, body)]
        if not edits or len(edits) < len(positions) or not all(_is_axis(n) for n in of_type(code.root, "identifier")):
            return None
        lanes = _lane_edits(code, body)
        return kernel.with_header(launch=launch).with_code(code.edited(edits + lanes)) if lanes else None


def _is_axis(node: Node) -> bool:
    """Whether an identifier is another one than the thread's position, or one axis of that."""
    return text_of(node) != _GRID or (node.parent is not None and node.parent.type == "field_expression")


def _widened(header: Mapping[str, Any]) -> dict[str, Any] | None:
    """A launch with 32 threads for each thread along x, in threadgroups of whole SIMD groups."""
    launch, threads = header.get("launch", {}), header.get("tunables", {}).get("THREADS", [])
    grid, group = launch.get("grid"), launch.get("threadgroup")
    if not (isinstance(grid, list) and isinstance(group, list) and len(grid) == len(group) == 3):
        return None
    whole = isinstance(threads, list) and all(isinstance(n, int) and n % 32 == 0 for n in threads)
    if not threads or not whole or group != [f"min(THREADS, {grid[0]})", 1, 1]:
        return None
    wide = f"{grid[0]} * 32" if str(grid[0]).isidentifier() else f"({grid[0]}) * 32"
    return {**launch, "grid": [wide, *grid[1:]], "threadgroup": [f"min(THREADS, {wide})", 1, 1]}


def _lane_edits(code: Code, body: Node) -> list[Edit]:
    """The edits that share the loops of the body, and of the functions that it calls, among lanes; [] where one of them
    cannot be shared."""
    edits, outside, shares = list[Edit](), list[Node](), False
    for function in functions(code):
        shared = [loop for loop in _outermost(function.node) if _is_whole_row(loop)]
        arrays = {n for loop in shared for n in _stored(loop)}
        if not all(_may_share(code, loop, arrays) for loop in shared):
            return []
        outside += [n for n in of_type(function.node, "subscript_expression") if not _within(n, shared)]
        if any(arrays & identifiers(n) for n in outside):
            return []
        lane = _LANE if inside(body, function.node) else code.fresh("lane")
        edits += [Edit.of(loop.node, _shared(code, loop, lane)) for loop in shared]
        shares = shares or bool(shared)
        if shared and lane != _LANE:
            edits += _passed(code, function, lane)
    stores = [n for n in of_type(body, "expression_statement") if match("$array[$i] = $value", n)]
    loops_ = [loop for loop in loops(body) if _is_whole_row(loop)]
    edits += [Edit(n.start_byte, n.start_byte, f"if ({_LANE} == 0) ") for n in stores if not _within(n, loops_)]
    return edits if shares else []


def _outermost(node: Node) -> list[Loop]:
    """The loops over whole rows that lie in no other one."""
    found = list[Loop]()
    for loop in loops(node):
        if _is_whole_row(loop) and not _within(loop.node, found):
            found.append(loop)
    return found


def _within(node: Node, loops_: list[Loop]) -> bool:
    return any(inside(node, loop.node) and node != loop.node for loop in loops_)


def _is_whole_row(loop: Loop) -> bool:
    """Whether a loop counts from 0 to a constant one by one."""
    end = text_of(loop.end)
    return text_of(loop.begin) == "0" and loop.step == "1" and end.isupper() and end.isidentifier()


def _stored(loop: Loop) -> set[str]:
    return {text_of(b["$a"]) for p in ("$a[$i] = $v", "$a[$i] += $v") for _, b in find(p, loop.body)}


def _summed(code: Code, loop: Loop) -> list[str]:
    """The variables from outside of a loop that it adds to."""
    found = [text_of(b["$sum"]) for n in loop.statements if (b := match("$sum += $term", n)) is not None]
    return list(dict.fromkeys(name for name in found if element_type(code, name, loop.node) == "float"))


def _may_share(code: Code, loop: Loop, arrays: set[str]) -> bool:
    """Whether a loop's turns may be done by different lanes: they change sums, their own elements and their own
    variables alone."""
    own = {d.name for n in of_type(loop.body, "declaration") for d in declared(code, n)}
    sums = _summed(code, loop)
    uses = [text_of(n) for n in of_type(loop.body, "identifier")]
    changed = assigned([loop.body]) - own - {*sums} - arrays
    once = all(uses.count(name) == 1 for name in sums)
    return not (changed or loop.jumps) and once and only_own_elements(loop, arrays)


def _shared(code: Code, loop: Loop, lane: str) -> str:
    """A loop, every 32nd turn of it a lane's, and the sums of the lanes."""
    names = {name: code.fresh(f"{name}_lane") for name in _summed(code, loop)}
    body = [_renamed(dedented(code, n), names) for n in loop.statements]
    lines = [f"float {own} = 0;" for own in names.values()]
    lines += [f"for ({loop.type} {loop.var} = {lane}; {loop.var} < {code.of(loop.end)}; {loop.var} += 32) {{"]
    lines += [*map(indented, body), "}"]
    lines += [f"{name} += simd_sum({own});" for name, own in names.items()]
    alone = loop.node.parent is not None and loop.node.parent.type != "compound_statement"
    return in_place_of(loop.node, code, ["{", *map(indented, lines), "}"] if alone else lines)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for name, own in names.items():
        text = re.sub(rf"\b{name}(?= \+=)", own, text)
    return text


def _passed(code: Code, function: Function, lane: str) -> list[Edit]:
    """One more parameter of a function, and what each call gives it."""
    parameters = of_type(function.node, "parameter_list")[0]
    separator = ", " if function.parameters else ""
    edits = [Edit(parameters.end_byte - 1, parameters.end_byte - 1, f"{separator}uint {lane}")]
    for call in calls(code.root, function.name):
        end = call.end_byte - 1
        edits.append(Edit(end, end, f"{separator}{_LANE if not _in_helper(call) else lane}"))
    return edits


def _in_helper(node: Node) -> bool:
    around = [n for n in ancestors(node) if n.type == "function_definition"]
    return bool(around) and "nf_body" not in identifiers(around[-1])


class SpanPerLane(Rewrite):
    """See `hypothesis`."""

    name = "span_per_lane"
    targets = ("metal",)
    hypothesis = (
        "SPAN values in a row for each lane: they lie in one or two words, which are loaded once, under one scale and"
        " one bias."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, edits = kernel.code, list[Edit]()
        if "SPAN" in code.names():
            return None
        strided = [loop for loop in loops(code.root) if loop.step == "32" and text_of(loop.begin) in (_LANE, "lane")]
        stored = {name for loop in strided for name in _stored(loop)}  # each element is the same lane's in all loops
        for loop in strided:
            lane, end = text_of(loop.begin), code.of(loop.end)
            if not stored & identifiers(loop.body):
                first, kind, var = code.fresh(f"{loop.var}_first"), loop.type, loop.var
                lines = [
                    f"for ({kind} {first} = {lane} * SPAN; {first} < {end}; {first} += 32 * SPAN) {{",
                    f"    for ({kind} {var} = {first}; {var} < min({first} + SPAN, {kind}({end})); ++{var}) {{",
                    *(indented(dedented(code, n), " " * 8) for n in loop.statements),
                    "    }",
                    "}",
                ]
                edits.append(Edit.of(loop.node, in_place_of(loop.node, code, lines)))
        return kernel.with_tunable("SPAN", [8, 16, 32]).with_code(code.edited(edits)) if edits else None


class FusedMultiplyAdd(Rewrite):
    """See `hypothesis`."""

    name = "fused_multiply_add"
    targets = ("metal",)
    hypothesis = (
        "x * (scale * q + bias) added to a sum as fma(q, scale * x, bias * x): the products with x wait for no word to"
        " be decoded, and one instruction adds the two."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code = kernel.code
        found = find("$sum += $x * ($scale * $q + $bias)", code.root)
        edits = [
            Edit.of(node, "{sum} += fma({q}, {scale} * {x}, {bias} * {x})".format(**{n[1:]: code.of(b[n]) for n in b}))
            for node, b in found
            if node.type == "assignment_expression"
        ]
        return kernel.with_code(code.edited(edits)) if edits else None

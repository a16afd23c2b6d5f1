"""Rewrites of plain counting loops, of every target: several sums in place of one, several turns at a time."""

from harness.propose.rewrites.cpu_products import PRODUCT
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import Loop, declared, dedented, element_type, in_place_of, indented, innermost
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, identifiers, match, of_type, text_of

_TARGETS = ("cpu", "metal")
_SUMMED = ("float", "vfloat")


class SplitSums(Rewrite):
    """See `hypothesis`."""

    name = "split_sums"
    targets = _TARGETS
    hypothesis = (
        "One chain of additions waits for each of them; PARTS chains side by side, added at the end, keep the adder"
        " busy."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code = kernel.code
        if "PARTS" in code.names():
            return None
        found = [(loop, _sums(code, loop)) for loop in _plain_loops(kernel)]
        edits = [Edit.of(loop.node, _split(code, loop, sums)) for loop, sums in found if sums]
        return kernel.with_tunable("PARTS", [4, 2, 8]).with_code(code.edited(edits)) if edits else None


class Unroll(Rewrite):
    """See `hypothesis`."""

    name = "unroll"
    targets = _TARGETS
    hypothesis = (
        "UNROLL turns of a loop as straight code: less counting and branching, and loads that the compiler may move"
        " ahead of the arithmetic of the turn before."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code = kernel.code
        if "UNROLL" in code.names():
            return None
        edits = [Edit.of(loop.node, _repeated(code, loop, "UNROLL", {})) for loop in _plain_loops(kernel)]
        return kernel.with_tunable("UNROLL", [4, 2, 8]).with_code(code.edited(edits)) if edits else None


def _plain_loops(kernel: Kernel) -> list[Loop]:
    """The innermost loops over more than a tunable's few turns, that none of their turns leaves."""
    tunables = {*kernel.header.get("tunables", {})}
    return [
        loop
        for loop in innermost(kernel.code.root)
        if not (loop.jumps or text_of(loop.end) in tunables or PRODUCT in identifiers(loop.body))
        and match("$end / LANES * LANES", loop.begin) is None  # what a vector loop leaves
    ]


def _sums(code: Code, loop: Loop) -> dict[str, str]:
    """The sums that a loop adds to once a turn and uses for nothing else, with their types."""
    found = dict[str, str]()
    own = {d.name for n in loop.statements for d in declared(code, n)}
    for statement in loop.statements:
        bound = match("$sum += $term", statement)
        name = text_of(bound["$sum"]) if bound is not None and bound["$sum"].type == "identifier" else ""
        uses = sum(text_of(node) == name for node in of_type(loop.body, "identifier"))
        kind = element_type(code, name, loop.node)
        if name and name not in own and uses == 1 and kind in _SUMMED:
            found[name] = kind
    return found


def _split(code: Code, loop: Loop, sums: dict[str, str]) -> str:
    """A loop with an array of PARTS for each of its sums."""
    parts = {name: code.fresh(f"{name}_parts") for name in sums}
    return _repeated(
        code, loop, "PARTS", parts, [f"{sums[name]} {array}[PARTS] = {{}};" for name, array in parts.items()]
    )


def _repeated(code: Code, loop: Loop, count: str, parts: dict[str, str], before: list[str] | None = None) -> str:
    """A loop in rounds of `count` turns, and what is left one by one; in a round's turns each sum of `parts` goes to
    the turn's own element of an array."""
    start, turn, kind = code.fresh(f"{loop.var}_start"), code.fresh("turn"), loop.type
    ahead = f"{count} * {loop.step}" if loop.step != "1" else count
    last = f"({count} - 1) * {loop.step}" if loop.step != "1" else f"{count} - 1"
    offset = f"{turn} * {loop.step}" if loop.step != "1" else turn
    body = [dedented(code, n) for n in loop.statements]
    lines = [
        *(before or []),
        f"{kind} {start} = {code.of(loop.begin)};",
        f"for (; {start} + {last} < {code.of(loop.end)}; {start} += {ahead}) {{",
        f"    for (int {turn} = 0; {turn} < {count}; ++{turn}) {{",
        f"        const {kind} {loop.var} = {start} + {offset};",
        *(indented(_in_parts(text, parts, turn), " " * 8) for text in body),
        "    }",
        "}",
        f"for (; {start} < {code.of(loop.end)}; {start} += {loop.step}) {{",
        f"    const {kind} {loop.var} = {start};",
        *map(indented, body),
        "}",
        *(f"for (int {turn} = 0; {turn} < {count}; ++{turn}) {n} += {a}[{turn}];" for n, a in parts.items()),
    ]
    return in_place_of(loop.node, code, ["{", *map(indented, lines), "}"])


def _in_parts(text: str, parts: dict[str, str], turn: str) -> str:
    """A statement with its sum in parts."""
    for name, array in parts.items():
        if text.startswith(f"{name} +="):
            return f"{array}[{turn}]{text.removeprefix(name)}"
    return text

"""The rewrite that lets the threads of a threadgroup share what all of them read."""

from tree_sitter import Node

from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import Loop, assigned, declared, in_place_of, indent_of, loop_of, loops
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, ancestors, find, identifiers, text_of

_BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
_OWN = ("thread_index_in_simdgroup", "simdgroup_index_in_threadgroup", "thread_index_in_threadgroup")
_BLOCKS = ("compound_statement", "for_statement", "function_definition", "translation_unit")


class StageInThreadgroup(Rewrite):
    """See `hypothesis`."""

    name = "stage_in_threadgroup"
    targets = ("metal",)
    hypothesis = (
        "The activations in threadgroup memory, converted once by all threads together, serve every output of a"
        " threadgroup, whose threads would each load and convert them again."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, body = kernel.code, kernel.body_block
        if body is None or "threadgroup_barrier" in code.names() or not body.named_children:
            return None
        for loop in loops(body):
            found = _shared_reads(code, body, loop)
            if found:
                start = body.named_children[0].start_byte
                staged, length = code.fresh("staged"), text_of(loop.end)
                edits = [Edit(start, start, f"threadgroup float {staged}[{length}];\n")]
                edits += [Edit.of(node, f"{staged}[{loop.var}]") for node in found]
                at = loop.node.start_byte
                lines = _filling(code, loop, staged, length, code.of(found[0]))
                edits.append(Edit(at, at, lines + "\n" + indent_of(code, loop.node)))
                return kernel.with_code(code.edited(edits))
        return None


def _shared_reads(code: Code, body: Node, loop: Loop) -> list[Node]:
    """The reads of a row of activations in a loop over a whole row, the same row for all threads of a threadgroup."""
    end, around = text_of(loop.end), list(ancestors(loop.node))
    outer = [found for n in around if (found := loop_of(n)) is not None]
    own = _of_one_thread(code, body) - {found.var for found in outer}  # if their bounds are the same for all threads
    if not (end.isupper() and end.isidentifier()) or any(n.type not in _BLOCKS for n in around):
        return []
    if any(identifiers(n) & own for found in outer for n in (found.begin, found.end)) or loop.jumps:
        return []
    changed = assigned([loop.body]) | {d.name for n in loop.statements for d in declared(code, n)}
    reads = [
        (node, bound["$base"])
        for node, bound in find(f"float($array[$base + {loop.var}])", loop.body)
        if not identifiers(bound["$base"]) & (own | changed | {loop.var}) and bound["$array"].type == "identifier"
    ]
    first = text_of(reads[0][0]) if reads else ""
    return [node for node, _ in reads if text_of(node) == first]


def _of_one_thread(code: Code, body: Node) -> set[str]:
    """The variables that differ between the threads of a threadgroup, as far as their declarations tell."""
    own = {*_OWN}
    for node in body.named_children:
        for one in declared(code, node):
            value = text_of(one.value) if one.value is not None else ""
            if "thread_position_in_grid.x" in value or Code(value).names() & own:
                own.add(one.name)
    return own | assigned([body])


def _filling(code: Code, loop: Loop, staged: str, length: str, read: str) -> str:
    """The loop that fills the array, between barriers where it is filled again."""
    again = any(n.type == "for_statement" for n in ancestors(loop.node))
    head = f"for (uint {loop.var} = thread_index_in_threadgroup; {loop.var} < {length}; "
    lines = [
        *([_BARRIER] if again else []),
        f"{head}{loop.var} += threads_per_threadgroup.x) {{",
        f"    {staged}[{loop.var}] = {read};",
        "}",
        _BARRIER,
    ]
    return in_place_of(loop.node, code, lines)

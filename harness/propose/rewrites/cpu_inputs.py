"""Rewrites of how staged activations and packed words are decoded, by the choice among the prelude's ways."""

from collections.abc import Iterator

from tree_sitter import Node

from harness.propose.rewrites.cpu_products import PRODUCT
from harness.propose.rewrites.functions import arguments, calls
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import assigned, declared, indent_of, innermost
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, identifiers, of_type, text_of

_SHIFTED = "Shifted"
_DOTS = ("packed_dots", "add_products", "row_dots")
_PERMUTED = """#include <immintrin.h>
struct Permuted {
    static constexpr float factor(int, int) { return 1.0f; }
    template <int B, int J>
    static vfloat field(const vuint* words) {
        // The permutation looks at an index's low four bits alone: the shifted word needs no mask.
        const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return vfloat(_mm512_permutexvar_ps(__m512i(words[0] >> 4 * J), values));
    }
};
"""


def template_arguments(code: Code, name: str, kind: str) -> Iterator[tuple[Node, list[Node]]]:
    """The uses of a template, a `template_type` or a `template_function`, with what they are given."""
    for node in of_type(code.root, kind):
        named, given = node.child_by_field_name("name"), node.child_by_field_name("arguments")
        if named is not None and given is not None and text_of(named) == name:
            yield node, given.named_children


def _staged(code: Code) -> list[tuple[Node, Node, Node]]:
    """Each `Staged<rows, Shifted>`: itself, its rows and its way to decode."""
    return [
        (node, given[0], given[1])
        for node, given in template_arguments(code, "Staged", "template_type")
        if len(given) == 2 and text_of(given[1]) == _SHIFTED
    ]


class MaskInPlace(Rewrite):
    """See `hypothesis`."""

    name = "mask_in_place"
    hypothesis = (
        "A field that is masked where it lies is q * 2^shift, and x laid out with 2^-shift undoes that exactly: the"
        " shift, a third of the integer work of decoding, is gone."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        found = _staged(kernel.code)
        edits = [Edit.of(decode, "InPlace") for _, _, decode in found]
        return kernel.with_code(kernel.code.edited(edits)) if found else None


class PermuteValues(Rewrite):
    """See `hypothesis`."""

    name = "permute_values"
    hypothesis = (
        "A permutation of sixteen floats by the low four bits of each lane replaces mask and conversion by one"
        " instruction: a gain where it runs beside the multiply-adds, a loss where it shares their port."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        found, supports = _staged(kernel.code), kernel.header.get("supports", {})
        allowed = supports.get("BITS", [4])
        if not found or "Permuted" in kernel.code.names() or not isinstance(allowed, list) or 4 not in allowed:
            return None
        edits = [Edit.of(decode, "Permuted") for _, _, decode in found] + [Edit(0, 0, _PERMUTED)]
        requires = [*kernel.header.get("requires", []), "__AVX512F__"]
        changed = kernel.with_header(supports={**supports, "BITS": [4]}, requires=requires)
        return changed.with_code(kernel.code.edited(edits))


class BytesOfInput(Rewrite):
    """See `hypothesis`."""

    name = "bytes_of_input"
    hypothesis = (
        "Activations in three bytes each, as good as a float here, let one instruction multiply four of them a lane"
        " with weights that are bytes after one mask, and add the products where the machine can (VNNI, SDOT)."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        found = _staged(kernel.code)
        edits = [Edit.of(node, f"FastestInput<{text_of(rows)}>::Type") for node, rows, _ in found]
        return kernel.with_code(kernel.code.edited(edits)) if found else None


class PrefetchWords(Rewrite):
    """See `hypothesis`."""

    name = "prefetch_words"
    hypothesis = (
        "Asking for the packed words some kilobytes ahead of the decoder keeps more of the memory's requests in flight"
        " than the hardware's own prefetcher does, which stops at each page."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        if "PREFETCH" in kernel.code.names():
            return None
        given = [g for name in _DOTS for _, g in template_arguments(kernel.code, name, "template_function")]
        edits = [Edit.of(g[1], "PREFETCH") for g in given if len(g) == 2 and text_of(g[1]) == "0"]
        if not edits:
            return None
        changed = kernel.with_tunable("PREFETCH", [8192, 0, 2048, 4096, 16384, 32768])
        return changed.with_code(kernel.code.edited(edits))


class AskOnce(Rewrite):
    """See `hypothesis`."""

    name = "ask_once"
    hypothesis = (
        "The staged activations asked for before the loop over the rows that they meet, not once a row: a short row's"
        " product takes little longer than asking."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, edits = kernel.code, list[Edit]()
        for loop in innermost(code.root):
            inputs = [arguments(call)[0] for call in calls(loop.body, PRODUCT) if arguments(call)]
            varying = {loop.var} | {d.name for n in loop.statements for d in declared(code, n)}
            asked = {text_of(n) for n in inputs if n.type == "call_expression"}
            if len(asked) != 1 or any(identifiers(n) & (varying | assigned([loop.body])) for n in inputs):
                continue
            if loop.node.parent is not None and loop.node.parent.type == "compound_statement":
                name = f"{code.fresh('staged')}{len(edits) or ''}"  # another one for each loop
                at = loop.node.start_byte
                line = f"const Input& {name} = {asked.pop()};\n{indent_of(code, loop.node)}"
                edits += [Edit(at, at, line), *(Edit.of(n, name) for n in inputs)]
        return kernel.with_code(code.edited(edits)) if edits else None

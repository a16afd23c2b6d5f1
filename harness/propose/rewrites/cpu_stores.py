"""The rewrite that stores past the caches what the kernel does not read again."""

from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import Code, Edit, find, text_of

STORE = "std::memcpy($array + $place, &$vector, sizeof($vector))"


class StorePastCaches(Rewrite):
    """See `hypothesis`."""

    name = "store_past_caches"
    hypothesis = (
        "What is stored and not read again in this call goes past the caches: a line that is filled whole need not be"
        " read before, which is a third of the traffic of what is read once and written once. Loses where it would have"
        " stayed in a cache until the next call."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code, block, edits = kernel.code, kernel.body_block, list[Edit]()
        for store, bound in find(STORE, code.root):
            array, place, vector = (text_of(bound[name]) for name in ("$array", "$place", "$vector"))
            if _only_stored(code, array):
                edits.append(Edit.of(store, f"store_past({array} + {place}, {vector})"))
        if not edits or block is None:
            return None
        end = block.named_children[-1].end_byte
        return kernel.with_code(code.edited([*edits, Edit(end, end, "\nfinish_stores();")]))


def _only_stored(code: Code, array: str) -> bool:
    """Whether it is a pointer, no array of the kernel's own, that vectors are stored to once and never loaded from."""
    stores = [bound for _, bound in find(STORE, code.root) if text_of(bound["$array"]) == array]
    loads = find(f"load_floats<LANES>({array} + $place)", code.root)
    return len(stores) == 1 and not any(loads) and f"float* {array} = " in code.text

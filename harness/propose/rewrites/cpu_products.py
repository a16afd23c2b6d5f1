"""Rewrites of the product of packed weights with activations, one value at a time in the seeds, into the prelude's."""

from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.functions import Function, arguments, calls, functions, inlined
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import declared, loop_of, loops
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import (
    Bindings,
    Code,
    Edit,
    ancestors,
    identifiers,
    inside,
    match,
    substituted,
    text_of,
)

PRODUCT = "packed_product"  # the product of a row with staged activations, which other rewrites look for
_TERM = (
    "to_float($x[$k]) * (to_float($scales[$k / GROUP]) * packed_value<BITS>($weight, $k)"
    " + to_float($biases[$k / GROUP]))"
)
_ROLES = ("x", "weight", "scales", "biases")

_STAGED = """using Rows = Packed<BITS, GROUP, LENGTH>;
using Input = Staged<Rows, Shifted>;
// Activations, laid out again only where others are asked for.
struct Kept {
    Input input;
    const T* from = nullptr;

    const Input& of(const T* x) {
        if (x != from) input.stage(x);
        from = x;
        return input;
    }
};
static PackedRow<S> packed_row(const uint32* weight, const S* scales, const S* biases) {
    return {reinterpret_cast<const unsigned char*>(weight), scales, biases};
}
static float packed_product(const Input& input, const PackedRow<S>& weights) {
    const PackedRow<S> one[1] = {weights};
    float out[1][1];
    packed_dots<1, 0>(&input, one, out);
    return out[0][0];
}"""


@dataclass(frozen=True)
class Product:
    """A function that multiplies a row of packed weights with activations: the places of its arguments by role, and
    that of the row's length."""

    function: Function
    roles: dict[str, int]
    length: int


def term_of(code: Code, statements: list[Node]) -> tuple[Node, Node] | None:
    """The sum and the term of a loop's body that is declarations and `sum += term`, the declarations put in place."""
    *before, last = statements or [code.root]
    found = match("$sum += $term", last)
    if found is None:
        return None
    values = dict[str, str]()
    for statement in before:
        given = declared(code, statement)
        if not given or any(d.value is None for d in given):
            return None
        values |= {d.name: substituted(code, d.value, values) for d in given if d.value is not None}
    whole = Code(f"void f() {{ {substituted(code, found['$term'], values)}; }}")
    body = whole.root.named_children[0].child_by_field_name("body") if whole.sound else None
    if body is None or not body.named_children:
        return None
    return found["$sum"], body.named_children[0]


def product_of(code: Code, function: Function) -> Product | None:
    """A function as a Product: zero, one loop over the values of a row, and the sum returned."""
    if len(function.statements) != 3:
        return None
    start, middle, end = function.statements
    sums, loop = declared(code, start), loop_of(middle)
    term = term_of(code, loop.statements) if loop is not None else None
    if loop is None or term is None or len(sums) != 1 or sums[0].value is None:
        return None
    total, bound = text_of(term[0]), match(_TERM, term[1])
    if bound is None or text_of(bound["$k"]) != loop.var or loop.step != "1" or text_of(loop.begin) != "0":
        return None
    if total != sums[0].name or float_of(sums[0].value) != 0 or match("return $total;", end) is None:
        return None
    return _with_places(function, loop.end, bound) if text_of(end.named_children[0]) == total else None


def float_of(node: Node) -> float | None:
    """A literal's value."""
    try:
        return float(text_of(node).rstrip("fF"))
    except ValueError:
        return None


def _with_places(function: Function, length: Node, bound: Bindings) -> Product | None:
    names = {role: text_of(bound[f"${role}"]) for role in _ROLES}
    if not {*names.values(), text_of(length)} <= {*function.parameters}:
        return None
    places = {role: function.parameters.index(name) for role, name in names.items()}
    return Product(function, places, function.parameters.index(text_of(length)))


def unwrapped(code: Code) -> tuple[Code, Product] | None:
    """The unit with the product's calls in the body alone, all with one constant length; None where there are none."""
    for _ in range(8):  # functions around functions
        product = next((p for f in functions(code) if (p := product_of(code, f)) is not None), None)
        if product is None:
            return None
        around = _around(code, product.function)
        if around is None:
            return code, product
        inner = inlined(code, around)
        if inner is None or not inner.sound:
            return None
        code = inner
    return None


def _around(code: Code, function: Function) -> Function | None:
    """A helper that calls `function`."""
    return next(
        (f for f in functions(code) if f.name not in ("nf_body", function.name) and calls(f.node, function.name)), None
    )


class StageInput(Rewrite):
    """See `hypothesis`."""

    name = "stage_input"
    hypothesis = (
        "Decoding a vector of words at once, with the activations laid out once a row in the order in which the lanes"
        " meet them and each group's bias taken out of the loop, makes the vector units the limit instead of the"
        " latency of one value after the other."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        found = unwrapped(kernel.code)
        if found is None or PRODUCT in kernel.code.names():
            return None
        code, product = found
        body = code.root.named_children[-1].child_by_field_name("body")
        sites = calls(code.root, product.function.name)
        if body is None or not sites or not all(inside(site, body) for site in sites):
            return None
        count = len(product.function.parameters)
        lengths = {text_of(arguments(s)[product.length]) for s in sites if len(arguments(s)) == count}
        if len(lengths) != 1 or any(len(arguments(site)) != count for site in sites):
            return None
        (length,) = lengths
        if not (length.isupper() and length.isidentifier()):
            return None
        edits = [Edit.of(product.function.node, _STAGED.replace("LENGTH", length))]
        return kernel.with_code(code.edited(edits + _site_edits(code, body, sites, product)))


def _site_edits(code: Code, body: Node, sites: list[Node], product: Product) -> list[Edit]:
    """The calls, each given one of as many staged rows as there are different ones, declared before the first."""
    kept, edits = dict[str, str](), list[Edit]()
    for site in sites:
        x, weight, scales, biases = (code.of(arguments(site)[product.roles[role]]) for role in _ROLES)
        count, index = _slots(site)
        name = kept.setdefault(x, f"{code.fresh('kept')}{len(kept) or ''}")
        input_ = f"{name}{index}.of({x})"
        edits.append(Edit.of(site, f"{PRODUCT}({input_}, packed_row({weight}, {scales}, {biases}))"))
        if list(kept).index(x) == len(kept) - 1 and not any(e.text.startswith(f"Kept {name}") for e in edits):
            outermost = next(n for n in body.named_children if inside(site, n))
            edits.append(Edit(outermost.start_byte, outermost.start_byte, f"Kept {name}{count};\n"))
    return edits


def _slots(site: Node) -> tuple[str, str]:
    """How many rows of activations are worth keeping for a call, and which one it takes, each as text in brackets: one
    for each turn of the loop around it where their number is a constant."""
    around = next((loop for n in ancestors(site) if (loop := loop_of(n)) is not None), None)
    if around is None or around.step != "1" or around.var not in identifiers(arguments(site)[0]):
        return "", ""
    bound = match("$first + $count", around.end)
    if bound is None or text_of(bound["$first"]) != text_of(around.begin):
        return "", ""
    count = text_of(bound["$count"])
    return (f"[{count}]", f"[{around.var} - {text_of(around.begin)}]") if count.isupper() else ("", "")


class FactorGroups(Rewrite):
    """See `hypothesis`."""

    name = "factor_groups"
    hypothesis = (
        "sum(x * (scale * q + bias)) is scale * sum(x * q) + bias * sum(x) within a group: one multiply-add and one"
        " addition a value in place of a conversion, a multiplication and two additions."
    )

    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """See `Rewrite`."""
        code = kernel.code
        product = next((p for f in functions(code) if (p := product_of(code, f)) is not None), None)
        loop = next(loops(product.function.node), None) if product is not None else None
        if product is None or loop is None:
            return None
        names = {role: product.function.parameters[place] for role, place in product.roles.items()}
        total = declared(code, product.function.statements[0])[0].name
        text = _FACTORED.format(total=total, length=code.of(loop.end), k=loop.var, **names)
        return kernel.with_code(code.edited([Edit.of(loop.node, text)]))


_FACTORED = """for (long group = 0; group < {length} / GROUP; ++group) {{
        float products = 0, values = 0;
        for (long {k} = group * GROUP; {k} < group * GROUP + GROUP; ++{k}) {{
            const float value = to_float({x}[{k}]);
            products += value * packed_value<BITS>({weight}, {k});
            values += value;
        }}
        {total} += to_float({scales}[group]) * products + to_float({biases}[group]) * values;
    }}"""

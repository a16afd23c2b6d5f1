"""Rewrites of the product of packed weights with activations, one value at a time in the seeds, into the prelude's."""

from dataclasses import dataclass

from tree_sitter import Node

from harness.propose.rewrites.functions import Function, arguments, calls, functions, inlined, with_comment
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.loops import Loop, declared, loop_of, loops
from harness.propose.rewrites.rewrite import Rewrite
from harness.propose.rewrites.tree import (
    Code,
    Edit,
    ancestors,
    expression,
    inside,
    match,
    substituted,
    text_of,
)

PRODUCT = "packed_product"  # the product of a row with staged activations, which other rewrites look for
_TERM = "to_float($x) * (to_float($scales) * packed_value<BITS>($weight, $k) + to_float($biases))"
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
    that of the row's length, or a constant."""

    function: Function
    roles: dict[str, int]
    length: int | str


@dataclass(frozen=True)
class Site:
    """A product in the body: what it multiplies, by role, and the text around it where it takes the place of `start` to
    `end`. `node` is where it lies."""

    node: Node
    start: int
    end: int
    given: dict[str, str]
    around: str = "{}"

    @property
    def text(self) -> str:
        """The address of its activations."""
        return self.given["x"]


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
    term = expression(substituted(code, found["$term"], values))
    return (found["$sum"], term[1]) if term is not None else None


def product_of(code: Code, function: Function) -> Product | None:
    """A function as a Product: zero, one loop over the values of a row, and the sum returned."""
    if len(function.statements) != 3:
        return None
    start, middle, end = function.statements
    sums, loop = declared(code, start), loop_of(middle)
    term = term_of(code, loop.statements) if loop is not None else None
    if loop is None or term is None or len(sums) != 1 or sums[0].value is None:
        return None
    total, given = text_of(term[0]), _addresses(code, term[1], loop)
    if given is None or total != sums[0].name or float_of(sums[0].value) != 0:
        return None
    if end.type != "return_statement" or [text_of(n) for n in end.named_children] != [total]:
        return None
    return _with_places(function, text_of(loop.end), given)


def _addresses(code: Code, term: Node, loop: Loop) -> dict[str, str] | None:
    """By role, the address of a row that a loop from 0 multiplies value by value; None for another term."""
    bound = match(_TERM, term)
    if bound is None or loop.step != "1" or text_of(loop.begin) != "0" or text_of(bound["$k"]) != loop.var:
        return None
    indices = {"x": loop.var, "scales": f"{loop.var} / GROUP", "biases": f"{loop.var} / GROUP"}
    found = {role: _address(bound[f"${role}"], index) for role, index in indices.items()}
    found["weight"] = text_of(bound["$weight"])
    if any(not text or loop.var in Code(text).names() for text in found.values()):
        return None
    return {role: found[role] or "" for role in _ROLES}


def _address(element: Node, index: str) -> str | None:
    """Where the array begins whose element `index` this is."""
    for pattern, form in ((f"$array[{index}]", "{array}"), (f"$array[$base + {index}]", "{array} + {base}")):
        bound = match(pattern, element)
        if bound is not None:
            return form.format(**{name[1:]: text_of(node) for name, node in bound.items()})
    return None


def float_of(node: Node) -> float | None:
    """A literal's value."""
    try:
        return float(text_of(node).rstrip("fF"))
    except ValueError:
        return None


def _with_places(function: Function, length: str, given: dict[str, str]) -> Product | None:
    if not {*given.values()} <= {*function.parameters}:
        return None
    places = {role: function.parameters.index(name) for role, name in given.items()}
    at = function.parameters.index(length) if length in function.parameters else length
    return Product(function, places, at)


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
        if PRODUCT in kernel.code.names():
            return None
        return _staged_calls(kernel) or _staged_loops(kernel)


def _staged_calls(kernel: Kernel) -> Kernel | None:
    """The calls of a function in the body."""
    found = unwrapped(kernel.code)
    if found is None:
        return None
    code, product = found
    body, count = code.root.named_children[-1], len(product.function.parameters)
    sites = calls(code.root, product.function.name)
    if not all(inside(site, body) and len(arguments(site)) == count for site in sites):
        return None
    at = product.length
    lengths = {at if isinstance(at, str) else text_of(arguments(site)[at]) for site in sites}
    listed = [
        Site(n, n.start_byte, n.end_byte, {role: code.of(arguments(n)[at]) for role, at in product.roles.items()})
        for n in sites
    ]
    node = product.function.node
    return _staged(kernel, code, listed, lengths, Edit(with_comment(node), node.end_byte, "{}"))


def _staged_loops(kernel: Kernel) -> Kernel | None:
    """The loops in the body itself, each with the sum that it begins with."""
    code, body = kernel.code, kernel.body_block
    sites, lengths = list[Site](), set[str]()
    for loop in loops(body) if body is not None else ():
        before, term = loop.node.prev_named_sibling, term_of(code, loop.statements)
        sums = declared(code, before) if before is not None else []
        if before is None or term is None or len(sums) != 1 or sums[0].value is None or float_of(sums[0].value) != 0:
            continue
        given = _addresses(code, term[1], loop) if sums[0].name == text_of(term[0]) else None
        if given is not None:
            around = f"float {sums[0].name} = {{}};"
            sites.append(Site(loop.node, before.start_byte, loop.node.end_byte, given, around))
            lengths.add(text_of(loop.end))
    return _staged(kernel, code, sites, lengths, Edit(0, 0, "{}\n"))


def _staged(kernel: Kernel, code: Code, sites: list[Site], lengths: set[str], helpers: Edit) -> Kernel | None:
    """The kernel with its products staged, of rows with one constant length; `helpers`: where the helpers go."""
    if len(lengths) != 1 or not sites:
        return None
    (length,) = lengths
    if not (length.isupper() and length.isidentifier()):
        return None
    placed = Edit(helpers.start, helpers.end, helpers.text.format(_STAGED.replace("LENGTH", length)))
    return kernel.with_code(code.edited([placed, *_site_edits(code, sites)]))


def _site_edits(code: Code, sites: list[Site]) -> list[Edit]:
    """The products, each given one of as many staged rows as there are different ones, declared before the first."""
    kept, edits = dict[str, str](), list[Edit]()
    for site in sites:
        count, index = _slots(site)
        if site.text not in kept:
            kept[site.text] = f"{code.fresh('kept')}{len(kept) or ''}"
            start = min(_outermost(site.node), site.start)
            edits.append(Edit(start, start, f"Kept {kept[site.text]}{count};\n"))
        row = ", ".join(site.given[role] for role in _ROLES[1:])
        text = f"{PRODUCT}({kept[site.text]}{index}.of({site.text}), packed_row({row}))"
        edits.append(Edit(site.start, site.end, site.around.format(text)))
    return edits


def _outermost(node: Node) -> int:
    """Where the statement of the body begins that a node lies in; of a loop with a sum in front, the sum."""
    around = [node, *ancestors(node)]
    statement = around[-4] if len(around) > 3 else node  # the last are the body's block, function and unit
    return statement.start_byte


def _slots(site: Site) -> tuple[str, str]:
    """How many rows of activations are worth keeping for a product, and which one it takes, each as text in brackets:
    one for each turn of the loop around it where their number is a constant."""
    around = next((loop for n in ancestors(site.node) if (loop := loop_of(n)) is not None), None)
    if around is None or around.step != "1" or around.var not in Code(site.text).names():
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

"""Rewrites as text: when they apply, what they leave alone, and how they are undone. Nothing is compiled."""

import re
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.variant import parse_variant
from harness.propose.rewrites import ALL, applicable, compose, settled, traits, undo
from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.tree import Code, match, of_type
from tests.harness.conftest import KERNELS
from tests.kernel_call import OPS

SUFFIX = {"cpu": "cpp", "metal": "metal"}
SEEDS = {
    (op, target): (KERNELS / op / target / f"plain.{suffix}").read_text()
    for op in OPS
    for target, suffix in SUFFIX.items()
}
PRODUCTS = [(op, "cpu") for op in OPS if op != "gated_delta_step"]
NAMES = [rewrite.name for rewrite in ALL]


def parsed(text, op, target, tmp_path):
    """The text as a variant of its op."""
    folder = tmp_path / op / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "contract.yaml").write_text((KERNELS / op / "contract.yaml").read_text())
    path = folder / f"made.{SUFFIX[target]}"
    path.write_text(text)
    return parse_variant(path)


def reached(seed, depth):
    """Every text that so many rewrites, one after the other, make of a seed, and the seed."""
    found, last = {seed: None}, [seed]
    for _ in range(depth):
        last = [
            text for before in last for rewrite in applicable(before) if (text := rewrite.apply(before)) not in found
        ]
        found |= dict.fromkeys(last)
    return list(found)


def test_every_rewrite_applies_to_some_seed_and_says_why():
    names = ["stage_input", "cut_into_pieces", "one_matrix_at_a_time", "ask_once"]
    deep = compose(SEEDS["expert_down", "cpu"], names)
    kept = compose(
        SEEDS["gated_delta_step", "cpu"], ["fuse_loops", "vectorise", "keep_in_registers", "store_past_caches"]
    )
    texts = [deep, kept, *(text for seed in SEEDS.values() for text in reached(seed, 2))]
    met = {name for text in texts for name in traits(text)}
    assert met == set(NAMES) and len(NAMES) == len(set(NAMES))
    assert all(rewrite.hypothesis and rewrite.targets for rewrite in ALL)


def test_what_is_loaded_again_is_not_stored_past_the_caches():
    text = compose(SEEDS["gated_delta_step", "cpu"], ["vectorise"])
    assert "std::memcpy(state + d" in text and "store_past_caches" not in {r.name for r in applicable(text)}


@pytest.mark.parametrize(("op", "target"), SEEDS)
def test_what_is_made_is_a_variant_with_its_traits_and_tunables(op, target, tmp_path):
    for text in reached(SEEDS[op, target], 2)[1:]:
        variant = parsed(text, op, target, tmp_path)
        by_name = {rewrite.name: rewrite for rewrite in ALL}
        assert variant.traits == traits(text) and variant.hypothesis == by_name[variant.traits[-1]].hypothesis
        words = set(re.findall(r"\w+", variant.body + variant.helpers))
        assert set(variant.tunables) - {"THREADS"} <= words


@pytest.mark.parametrize(("op", "target"), SEEDS)
def test_the_last_rewrite_is_undone_to_the_letter(op, target):
    seed = SEEDS[op, target]
    for text in reached(seed, 2):
        for rewrite in applicable(text):
            assert undo(seed, rewrite.apply(text), rewrite.name) == text
        assert compose(seed, traits(text)) == text


@pytest.mark.parametrize(("op", "target"), SEEDS)
def test_a_rewrite_is_applied_once(op, target):
    for text in reached(SEEDS[op, target], 2):
        for name in traits(text):
            (rewrite,) = [r for r in ALL if r.name == name]
            assert not rewrite.applies(text)
            with pytest.raises(ValueError, match=name):
                rewrite.apply(text)


def test_what_another_rewrite_needs_goes_with_it():
    seed = SEEDS["qmatvec", "cpu"]
    text = compose(seed, ["stage_input", "bytes_of_input", "prefetch_words"])
    assert traits(undo(seed, text, "bytes_of_input")) == ("stage_input", "prefetch_words")
    assert undo(seed, text, "stage_input") == seed


@pytest.mark.parametrize(("op", "target"), PRODUCTS)
def test_independent_rewrites_may_come_in_any_order(op, target):
    names = ("stage_input", "bytes_of_input", "prefetch_words", "cut_into_pieces")
    code = {
        Kernel.parse(compose(SEEDS[op, target], order)).body
        for order in permutations(names)
        if order.index("stage_input") < min(map(order.index, ("bytes_of_input", "prefetch_words")))
    }
    assert len({re.sub(r"\W+", "", text) for text in code}) == 1


def test_recombined_traits_settle_on_those_that_apply():
    seed = SEEDS["qmatvec", "cpu"]
    text = settled(seed, ["split_sums", "prefetch_words", "bytes_of_input", "mask_in_place", "stage_input"])
    assert traits(text) == ("stage_input", "mask_in_place", "prefetch_words")
    assert settled(seed, []) == seed


def test_an_unknown_or_inapplicable_trait_is_named():
    for names, word in ((["no_such_rewrite"], "no_such_rewrite"), (["bytes_of_input"], "bytes_of_input")):
        with pytest.raises(ValueError, match=word):
            compose(SEEDS["qmatvec", "cpu"], names)


# The product in the body itself, operands, names and layout unlike the seed's.
INLINE = """/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
hypothesis: as somebody else might write it
---*/
const Range mine = share(m * N, thread, n_threads);
for (long at = mine.begin; at < mine.end; ++at) {
    const long row = at % N;
    const S* a = scales + row * (K / GROUP);
    float sum = 0.0f;
    for (long j = 0; j < K; ++j)
        sum += (to_float(a[j / GROUP]) * packed_value<BITS>(w + row * (K * BITS / 32), j)  // decoded
                + to_float(biases[row * (K / GROUP) + j / GROUP])) * to_float(x[at / N * K + j]);
    y[at] = from_float<T>(sum);
}
"""


def test_the_product_is_found_however_it_is_written():
    text = compose(INLINE, ["stage_input", "bytes_of_input", "cut_into_pieces", "several_rows"])
    assert "packed_value" not in text and "kept.of(x + piece * K)" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sum += (", "sum -= ("),  # another sum
        ("j = 0; j", "j = 1; j"),  # not the whole row
        ("++j", "j += 2"),
        ("a[j / GROUP]", "a[j % GROUP]"),  # another layout
        ("x[at / N * K + j]", "x[at / N * K + j * 2]"),
        ("sum = 0.0f", "sum = 1.0f"),
        ("j < K", "j < at"),  # no constant length
        ("to_float(x", "std::fabs(to_float(x"),
    ],
)
def test_another_sum_is_left_alone(old, new):
    changed = INLINE.replace(old, new, 1)
    if "fabs" in new:
        changed = changed.replace("+ j]);", "+ j]));")
    assert changed != INLINE and "stage_input" not in [rewrite.name for rewrite in applicable(changed)]


@pytest.mark.parametrize("target", SUFFIX)
def test_a_body_without_any_pattern_is_left_alone(target):
    text = SEEDS["qmatvec", target]
    empty = text[: text.index("---*/\n") + len("---*/\n")] + "y[0] = x[0];\n"
    assert applicable(empty) == [] and settled(empty, NAMES) == empty


JOINED = "for (long d = 0; d < DK; ++d) state[d] = g[head] * before[d];"


@pytest.mark.parametrize(
    "line",
    [
        "for (long d = 0; d < DK; ++d) recalled += state[DK - 1 - d] * to_float(key[d]);",  # another turn's element
        "for (long d = 0; d < DK - 1; ++d) recalled += state[d] * to_float(key[d]);",  # other turns
        "for (long d = 0; d < DK; ++d) recalled += touch(state) * to_float(key[d]);",  # who knows what it changes
    ],
)
def test_loops_that_depend_on_each_other_stay_apart(line):
    seed = SEEDS["gated_delta_step", "cpu"]
    first = "for (long d = 0; d < DK; ++d) recalled += state[d] * to_float(key[d]);"
    assert seed.count(first) == 1 and seed.count(JOINED) == 1
    text = compose(seed.replace(first, line), ["fuse_loops"])
    assert line.partition(";")[2].partition(") ")[2] in text and JOINED.partition("++d) ")[2] in text
    assert len(of_type(Kernel.parse(text).code.root, "for_statement")) == 4  # the pair behind them was joined


def test_patterns_match_whatever_stands_for_a_name():
    expression = Code("void f() { a[i + 1] * (b - c); }").root
    node = of_type(expression, "binary_expression")[0]
    assert match("$x * $y", node) is not None and match("(b - c) * $x[i + 1]", node) is not None
    assert match("$x * $x", node) is None and match("$x + $y", node) is None


WORDS = st.sampled_from(
    [*"{}()[];,<>+-*/=&%", "for", "float", "return", "\n", "/*", "*/", "k", "total", "0", "é", "#if 1\n"]
)


@settings(max_examples=150)
@given(st.data())
def test_odd_bodies_are_refused_or_stay_sound(data):
    """Bytes of seeds cut out, doubled or replaced: no rewrite raises, and what it makes of a text that parses does."""
    text = data.draw(st.sampled_from([*SEEDS.values(), INLINE]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 40)))
        middle = data.draw(st.one_of(st.just(text[start:end] * 2), st.lists(WORDS, max_size=3).map("".join)))
        text = text[:start] + middle + text[end:]
    for _ in range(3):
        rewrites = applicable(text)
        if not rewrites:
            break
        text = data.draw(st.sampled_from(rewrites)).apply(text)
        assert Kernel.parse(text).code.sound

"""Near-duplicates are known by their syntax tree, and nothing else is taken for one."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.errors import UsageError
from harness.likeness import shape, twin

KERNELS = Path(__file__).parents[2] / "kernels"
CPU = """/*---
op: qmatvec
target: cpu
tunables: {ROWS: [1, 2]}
launch: {threads: 2}
hypothesis: a reason
---*/
// helpers
struct Pair { float low, high; };
template <typename V> static V twice(const V& value) { return 2 * value; }
// body
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    float total[4] = {};
    for (auto& part : total) part += twice(to_float(x[i])) * ROWS;
    auto last = [&](int j) { return total[j]; };
    Pair pair{last(0), last(3)};
    y[i] = from_float<T>(pair.low + pair.high);
}
"""
METAL = """/*---
op: qmatvec
target: metal
launch: {grid: ["N * 32", m, 1], threadgroup: [64, 1, 1]}
hypothesis: a reason
---*/
// helpers
constexpr constant int WORDS = 2;
float sum(device const float* at, threadgroup float* to) { return at[0] + to[WORDS]; }
// body
threadgroup float partial[32];
partial[0] = sum(x, partial);
y[0] = T(partial[0]);
"""
RENAMED = {
    CPU: ["total", "part", "twice", "value", "Pair", "low", "i", "mine", "last", "j", "pair", "V", "ROWS"],
    METAL: ["partial", "WORDS", "sum", "at", "to"],
}


def renamed(text, name):
    return re.sub(rf"\b{name}\b", "another_name", text)


@pytest.mark.parametrize(("text", "name"), [(text, name) for text, names in RENAMED.items() for name in names])
def test_another_name_makes_no_other_shape(text, name):
    assert renamed(text, name) != text
    assert shape(renamed(text, name)).digest == shape(text).digest


@pytest.mark.parametrize("name", ["x", "y", "to_float", "share", "begin", "N", "thread"])
def test_a_name_that_the_code_does_not_declare_is_part_of_the_shape(name):
    assert shape(renamed(CPU, name)).digest != shape(CPU).digest


def test_comments_layout_and_hypothesis_do_not_count():
    other = CPU.replace("    ", "\t").replace(" {\n", "\n{ // why\n").replace("a reason", "another reason")
    assert other != CPU and shape(other) == shape(CPU)


@pytest.mark.parametrize(
    ("text", "old", "new", "line"),
    [
        (CPU, "total[4]", "total[8]", "same as old but for 4 -> 8: make it a tunable"),
        (CPU, "[1, 2]", "[1, 2, 4]", "same as old but for ROWS of [1, 2] -> ROWS of [1, 2, 4]: make it a tunable"),
        (CPU, "threads: 2", "threads: 8", "same as old but for 2 -> 8: make it a tunable"),
        (METAL, "[64, 1, 1]", "[128, 1, 1]", "same as old but for 64 -> 128: make it a tunable"),
        (CPU, "pair", "couple", "same as old but for names"),
    ],
)
def test_a_twin_is_named_with_what_differs(text, old, new, line):
    found = twin(text.replace(old, new), {"other": "/*---\nop: x\n---*/\n;", "old": text})
    assert found is not None and found.line() == line


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (CPU, "pair.low + pair.high", "pair.low - pair.high"),
        (CPU, "pair.low + pair.high", "pair.high + pair.low"),
        (CPU, "i < mine.end", "i != mine.end"),
        (CPU, "float total", "double total"),
        (CPU, "ROWS;", "(ROWS + 1);"),
        (METAL, "threadgroup float* to", "device float* to"),
        (METAL, "constexpr constant int", "constexpr int"),
        (METAL, '"N * 32"', '"N + 32"'),
    ],
)
def test_another_tree_is_no_twin(text, old, new):
    assert old in text
    assert twin(text.replace(old, new), {"old": text}) is None


def test_no_two_committed_variants_are_twins():
    for folder in {path.parent for path in KERNELS.glob("*/*/plain.*")}:
        texts = {path.stem: path.read_text() for path in sorted(folder.iterdir())}
        for name, text in texts.items():
            assert twin(text, {other: texts[other] for other in texts if other != name}) is None, name


@pytest.mark.parametrize("text", ["", "y[0] = 1;", "/*---\nop: [\n---*/\n;", "/*---\n- 1\n---*/\n;"])
def test_a_text_without_a_header_is_refused(text):
    with pytest.raises(UsageError, match="header"):
        shape(text)


@settings(max_examples=60)
@given(st.text(alphabet="{}();=+*&<>[]#\"'/\\ \nabxyT01", max_size=80))
def test_any_code_has_a_shape_and_is_its_own_twin(code):
    text = f"/*---\nop: qmatvec\n---*/\n{code}"
    assert twin(text, {"itself": text}) is not None


def test_a_very_deep_tree_is_no_trouble():
    deep = f"/*---\nop: qmatvec\n---*/\ny[0] = {'(' * 3000}1{')' * 3000};"
    assert twin(deep, {"itself": deep}) is not None

"""Expressions: the values Python's own integers give, and a clear refusal of everything else."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.errors import UsageError
from baseline.expressions import LENGTH, evaluate, names

VALUES = {"N": 12288, "ROWS": 4, "m": 3, "GROUP": 64}
NUMBERS = st.integers(0, 10**6)
LEAVES = st.one_of(NUMBERS.map(str), st.sampled_from(list(VALUES)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    ),
    max_leaves=12,
)


@given(TREES.filter(lambda text: len(text) <= LENGTH))
def test_sums_products_and_extremes_are_pythons(text: str) -> None:
    assert evaluate(text, VALUES) == eval(text, {"min": min, "max": max}, dict(VALUES))


@given(NUMBERS, st.integers(1, 10**4))
def test_ceil_div_and_round_up(a: int, b: int) -> None:
    ceiling = math.ceil(Fraction(a, b))
    assert evaluate("ceil_div(a, b)", {"a": a, "b": b}) == ceiling
    assert evaluate("round_up(a, b)", {"a": a, "b": b}) == ceiling * b


@given(NUMBERS, st.integers(1, 10**4))
def test_divisions_are_exact_or_refused(a: int, b: int) -> None:
    assert evaluate(f"{a * b} / {b}", {}) == a
    if a % b:
        with pytest.raises(UsageError, match="leaves a remainder"):
            evaluate("a / b", {"a": a, "b": b})


@given(st.integers())
def test_an_integer_is_its_own_value(number: int) -> None:
    assert (evaluate(number, {}), names(number)) == (number, ())


def test_precedence_and_a_real_launch() -> None:
    assert evaluate("1 + 2 * 3 - 8 / 4", {}) == 5
    assert evaluate("ceil_div(N, ROWS) * 32", VALUES) == 98304


def test_names_in_order_without_functions() -> None:
    assert names("ceil_div(N, ROWS) * 32 + min(m, N)") == ("N", "ROWS", "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("N * K", "K is unknown; known are N, ROWS, m, GROUP"),
        ("N / 0", "division"),
        ("ceil_div(N, 0)", "division"),
        ("N / 5", "leaves a remainder"),
        ("N // 5", "only names, integers"),
        ("N ** 2", "only names, integers"),
        ("-N", "only names, integers"),
        ("True", "only names, integers"),
        ("1.5", "only names, integers"),
        ("'N'", "only names, integers"),
        ("min(N)", "only names, integers"),
        ("min(N, m, 1)", "only names, integers"),
        ("min(N, default=1)", "only names, integers"),
        ("pow(N, 2)", "only names, integers"),
        ("N.real", "only names, integers"),
        ("N +", "invalid syntax"),
        ("", "invalid syntax"),
        ("N\x00", "null bytes"),
        ("1+" * LENGTH + "1", "longer than"),
        ("(" * 240 + "N" + ")" * 240, "parentheses"),
        ("9" * (LENGTH + 1), "longer than"),
    ],
)
def test_everything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="cannot be computed") as caught:
        evaluate(text, VALUES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    try:
        assert type(evaluate(text, VALUES)) is int
    except UsageError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=60))
def test_names_refuses_what_no_values_could_make_right(text: str) -> None:
    try:
        wanted = names(text)
    except UsageError:
        with pytest.raises(UsageError):
            evaluate(text, VALUES)
    else:
        assert all(name.isidentifier() for name in wanted)

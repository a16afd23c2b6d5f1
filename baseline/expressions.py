"""Integer expressions in contracts and variants: tensor sizes and launch geometry."""

import ast
from collections.abc import Callable, Mapping

from baseline.errors import UsageError

Expression = int | str
FUNCTIONS: Mapping[str, Callable[[int, int], int]] = {
    "ceil_div": lambda a, b: -(-a // b),
    "round_up": lambda a, multiple: -(-a // multiple) * multiple,
    "min": min,
    "max": max,
}
"""Each takes two integers."""

LENGTH = 500
"""The longest expression, in characters: it bounds nesting and the size of numbers."""


def evaluate(text: Expression, values: Mapping[str, int]) -> int:
    """The value of an expression of integers, names, `+ - * /` and FUNCTIONS; every `/` must be exact.

    Raises UsageError, naming the expression and what is wrong with it.
    """
    try:
        return text if isinstance(text, int) else _value(_parse(text), values)
    except (SyntaxError, ArithmeticError) as error:
        raise _refusal(text, error) from None


def names(text: Expression) -> tuple[str, ...]:
    """The names whose values an expression needs, each once, in order of appearance.

    Raises UsageError for whatever no values could make an expression.
    """
    try:
        found = [] if isinstance(text, int) else _names(_parse(text))
    except SyntaxError as error:
        raise _refusal(text, error) from None
    return tuple(dict.fromkeys(found))


def _refusal(text: Expression, error: Exception) -> UsageError:
    reason = error.msg if isinstance(error, SyntaxError) else error
    shown = text if len(str(text)) <= LENGTH else f"{str(text)[:40]}..."
    return UsageError(f"the expression {shown!r} cannot be computed: {reason}")


def _parse(text: str) -> ast.expr:
    if len(text) > LENGTH:
        raise SyntaxError(f"it is longer than {LENGTH} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (ValueError, MemoryError, RecursionError) as error:  # a null byte, nesting
        raise SyntaxError(str(error)) from None


def _value(node: ast.expr, values: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)) if type(number) is int:
            return number
        case ast.Name(id=name):
            if name not in values:
                raise ArithmeticError(f"{name} is unknown; known are {', '.join(values) or 'no names'}")
            return values[name]
        case ast.BinOp(left=left, op=operator, right=right):
            return _operate(operator, _value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=[a, b], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_value(a, values), _value(b, values))
    raise _not_allowed()


def _operate(operator: ast.operator, left: int, right: int) -> int:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            quotient, remainder = divmod(left, right)
            if remainder:
                raise ArithmeticError("a division leaves a remainder")
            return quotient
    raise _not_allowed()


def _names(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=int(number)) if type(number) is int:
            return []
        case ast.Name(id=name):
            return [name]
        case ast.BinOp(left=a, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=b):
            return _names(a) + _names(b)
        case ast.Call(func=ast.Name(id=name), args=[a, b], keywords=[]) if name in FUNCTIONS:
            return _names(a) + _names(b)
    raise _not_allowed()


def _not_allowed() -> SyntaxError:
    allowed = ", ".join(f"{name}(a, b)" for name in FUNCTIONS)
    return SyntaxError(f"only names, integers, + - * / and {allowed} are allowed")

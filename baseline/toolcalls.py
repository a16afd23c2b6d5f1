"""Whether a generated answer is the tool call that was wanted."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# What mlx-lm's parsers raise for text that is no call of their format; the last two where it is nested too deeply.
PARSE_ERRORS = (ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError, RecursionError, MemoryError)
THINK_END = "</think>"


@dataclass(frozen=True)
class Verdict:
    """`valid`: exactly one call that parses, with a name and arguments; `name`: it is the right tool's;
    `exact`: it equals the expected call, argument types included."""

    valid: bool
    name: bool
    exact: bool

    def worse_than(self, other: "Verdict") -> bool:
        return (self.valid, self.name, self.exact) < (other.valid, other.name, other.exact)


@dataclass(frozen=True)
class ToolScore:
    """How many of `prompts` answers were valid, named the right tool, and were exact."""

    prompts: int
    valid: int
    name: int
    exact: int


def score(verdicts: Iterable[Verdict]) -> ToolScore:
    rows = list(verdicts)
    return ToolScore(len(rows), sum(v.valid for v in rows), sum(v.name for v in rows), sum(v.exact for v in rows))


def judge(text: str, expected: Mapping[str, Any], parser: str) -> Verdict:
    """Judge one answer. `expected` is {"name", "arguments"}; `parser` a module of mlx_lm.tool_parsers."""
    module = importlib.import_module(f"mlx_lm.tool_parsers.{parser}")
    calls = list(_spans(text.rpartition(THINK_END)[2], module))
    call = _parse(calls[0], module.parse_tool_call) if len(calls) == 1 else None
    if call is None:
        return Verdict(False, False, False)
    return Verdict(True, call["name"] == expected["name"], _same(call, dict(expected)))


def _spans(text: str, module: ModuleType) -> Iterable[str]:
    """The inside of each call; one that never ends is empty, which no parser accepts."""
    start, end = module.tool_call_start, module.tool_call_end
    for part in text.split(start)[1:]:
        yield part if not end else part.partition(end)[0] if end in part else ""


def _parse(text: str, parse: Callable[[str], Any]) -> dict[str, Any] | None:
    try:
        call = parse(text)
    except PARSE_ERRORS:
        return None
    if isinstance(call, list) and len(call) == 1:  # the formats whose block can hold several calls
        call = call[0]
    named = isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)
    return call if named else None


def _same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and from 1.0, as JSON does."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)

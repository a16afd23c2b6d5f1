"""Metal source as C++: what a C++ compiler cannot be told by a header is rewritten here, line by line.

Two things: `threadgroup` says "shared" before a variable and nothing before a pointer; and constructs that the emulator
does not have are named, with their line, instead of leaving it to the compiler to stumble over them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from baseline.targets.compiler import BuildError

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/) | (?P<space>\s+) | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<word>[A-Za-z_]\w*) | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*) | (?P<sign>::|->|.)""",
    re.DOTALL | re.VERBOSE,
)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"][^>"\n]*[>"])[^\n]*$', re.MULTILINE)
_SWIZZLE = re.compile(r"\.\s*([xyzw]{2,4}|[rgba]{2,4})\b")
_LETTERS = {letter: index for letters in ("xyzw", "rgba") for index, letter in enumerate(letters)}
_UNSUPPORTED = re.compile(
    r"(texture|depth)(1d|2d|3d|cube)\w*|texture_buffer|sampler|imageblock\w*|simdgroup_event|simdgroup_async_copy\w*"
    r"|intersector|intersection_\w+|acceleration_structure|visible_function_table|indirect_command_buffer"
    r"|function_constant|os_log\w*|cooperative_tensor|tensor_\w+|stage_in|dispatch_thread\w*_to_tile"
)
_OPEN, _CLOSE = {"(": 1, "[": 1, "{": 1}, {")": 1, "]": 1, "}": 1}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


def translate(source: str, file: str, line: int = 1) -> str:
    """MSL text as C++ for a unit that includes metal_stdlib.h; every line keeps its number.

    `line` is that of the first line in `file`. Raises BuildError naming a construct that is not emulated.
    """
    source = _INCLUDE.sub(lambda match: _include(match, source, file, line), source)
    tokens = [_Token(str(m.lastgroup), m.group()) for m in _TOKEN.finditer(source)]
    _refuse(tokens, file, line)
    return _rewrite(tokens, file, line)


def swizzles(*sources: str) -> str:
    """The macro that swizzle.h asks for: the swizzles of several letters that the sources name."""
    found = sorted({name for source in sources for name in _SWIZZLE.findall(source)})
    entries = (f"S({name}, {', '.join(str(_LETTERS[letter]) for letter in name)})" for name in found)
    return f"#define NF_SWIZZLES(S) {' '.join(entries)}"


def _include(match: re.Match[str], source: str, file: str, line: int) -> str:
    if re.fullmatch(r"<(metal_\w+|simd/\w+\.h)>", match[1]):
        return ""
    number = line + source.count("\n", 0, match.start())
    raise BuildError(f"{file}:{number}: error: #include {match[1]} is not emulated; only <metal_...> headers are")


def _refuse(tokens: Sequence[_Token], file: str, line: int) -> None:
    for token in tokens:
        if token.kind == "word" and _UNSUPPORTED.fullmatch(token.text):
            raise BuildError(f"{file}:{line}: error: {token.text} is not emulated")
        line += token.text.count("\n")


def _rewrite(tokens: Sequence[_Token], file: str, line: int) -> str:
    out: list[str] = []
    parentheses = 0
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.text == "threadgroup":
            end = _variable(tokens, at) if parentheses == 0 else None
            if end is not None:
                out.append(_declarations(tokens[at + 1 : end], file, line))
                line += sum(t.text.count("\n") for t in tokens[at:end])
                at = end
                continue
        else:
            out.append(token.text)
        parentheses += (token.text == "(") - (token.text == ")")
        line += token.text.count("\n")
        at += 1
    return "".join(out)


def _variable(tokens: Sequence[_Token], at: int) -> int | None:
    """Where the declaration that `threadgroup` opens at `at` ends, if it is one of variables and not of a pointer."""
    depth = angles = 0
    for index in range(at + 1, len(tokens)):
        text = tokens[index].text
        if depth == 0 and angles == 0:
            if text == ";":
                return index
            if text in "*&(){}":
                return None
        depth += (text in _OPEN) - (text in _CLOSE)
        if depth == 0:
            angles = max(angles + (text == "<") - (text == ">"), 0)
    return None


def _declarations(tokens: Sequence[_Token], file: str, line: int) -> str:
    """`float a[8], b` as references to shared storage."""
    parts = _split([t for t in tokens if t.kind not in ("comment", "space")])
    name_at = max(i for i, t in enumerate(parts[0]) if t.kind == "word" and _outside_brackets(parts[0], i))
    kind = " ".join(token.text for token in parts[0][:name_at])
    if not kind or any(token.text == "=" for part in parts for token in part):
        shown = "".join(token.text for token in tokens).strip()
        raise BuildError(
            f"{file}:{line}: error: `threadgroup {shown}` is not emulated: no initialiser, and a named type"
        )
    parts[0] = parts[0][name_at:]
    declared = [(part[0].text, "".join(token.text for token in part[1:])) for part in parts]
    newlines = "\n" * sum(token.text.count("\n") for token in tokens)
    return (
        " ".join(f'auto& {n} = nf_threadgroup<{kind}{dims}>("{n}", [] {{}});' for n, dims in declared)[:-1] + newlines
    )


def _split(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """The declarators, cut at the commas outside brackets and template arguments."""
    parts: list[list[_Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in "([{<") - (token.text in ")]}>")
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _outside_brackets(tokens: Sequence[_Token], index: int) -> bool:
    depth = 0
    for token in tokens[:index]:
        depth += (token.text in "([{<") - (token.text in ")]}>")
    return depth == 0

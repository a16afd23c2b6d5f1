"""Metal source as C++: what a C++ compiler cannot be told by a header is rewritten here, line by line.

Four things: `threadgroup` says "shared" before a variable and nothing before a pointer; a literal is never a double;
a swizzle that is read is a vector; and constructs that the emulator does not have are named, with their line, before
the compiler stumbles over them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from baseline.targets.compiler import BuildError

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/) | (?P<space>\s+) | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<directive>\#(?:\\\n|[^\n])*)
      | (?P<word>[A-Za-z_]\w*) | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*) | (?P<sign>::|->|.)""",
    re.DOTALL | re.VERBOSE,
)
_INCLUDE = re.compile(r"#[ \t]*include\b")
_DEFINE = re.compile(r"#[ \t]*define\b")
_OF_METAL = re.compile(r"#[ \t]*include[ \t]*[<\"](metal_\w+|simd/\w+\.h)[>\"]")
_THREADGROUP = re.compile(r"\bthreadgroup\b")
_SWIZZLE = re.compile(r"(?:\.|->)\s*([xyzw]{2,4}|[rgba]{2,4})\b")
_SWIZZLE_NAME = re.compile(r"[xyzw]{2,4}|[rgba]{2,4}")
_BEHIND_LVALUE = re.compile(r"(?:[-+*/%&|^]|<<|>>)?=(?!=)|\+\+|--|\.|->|\[|\(")  # assigned to, part taken or called
_LETTERS = {letter: index for letters in ("xyzw", "rgba") for index, letter in enumerate(letters)}
_UNSUPPORTED = re.compile(
    r"(texture|depth)(1d|2d|3d|cube)\w*|texture_buffer|sampler|imageblock\w*|simdgroup_event|simdgroup_async_copy\w*"
    r"|intersector|intersection_(query|function_table|params|result)\w*|acceleration_structure|visible_function_table"
    r"|indirect_command_buffer|function_constant|os_log|cooperative_tensor|tensor_(ops|handle|inline)|stage_in"
)
_NOT_IN_METAL = re.compile(
    r"double|std|try|catch|throw|virtual|new|delete|asm|__asm|__asm__|dynamic_cast|typeid|thread_local"
)
_FLOAT = re.compile(r"(?P<value>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?P<suffix>|bf|BF)")
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_BRACKETS_OF_TYPE = ("alignas", "decltype", "__attribute__")
# What may stand before the `threadgroup` of a variable, and what before that of a type: an expression's parts.
_BEFORE_VARIABLE = ("", ";", "{", "}", ":", "const", "volatile", "else")
_SETTLES_STATIC = ("const", "constexpr", "constant", "threadgroup", "(", "=", ";", "[", "{")
_BEFORE_TYPE = ("<", ",", "=", "*", "&")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int

    @property
    def silent(self) -> bool:
        return self.kind in ("comment", "space")


def translate(source: str, file: str, line: int = 1, function: bool = True) -> str:
    """MSL text as C++ for a unit that includes metal_stdlib.h; every line keeps its number.

    `line` is that of the first line in `file`; `function` says whether the text is a function's. Raises BuildError
    naming a construct that is not emulated.
    """
    tokens = _tokens(source, line)
    for token in tokens:
        _refuse(token, file)
    _refuse_what_metal_lacks(tokens, file)
    return _rewrite(_without_alignment(tokens), file, 0 if function else -1)


def _tokens(source: str, line: int) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(source):
        found.append(_Token(str(match.lastgroup), match.group(), line))
        line += match.group().count("\n")
    return found


def swizzles(*sources: str) -> str:
    """The macro that swizzle.h asks for: the swizzles of several letters that the sources name."""
    found = sorted({name for source in sources for name in _SWIZZLE.findall(source)})
    entries = (f"S({name}, {', '.join(str(_LETTERS[letter]) for letter in name)})" for name in found)
    return f"#define NF_SWIZZLES(S) {' '.join(entries)}"


def _refuse(token: _Token, file: str) -> None:
    where = f"{file}:{token.line}: error:"
    if token.kind == "word" and _UNSUPPORTED.fullmatch(token.text):
        raise BuildError(f"{where} {token.text} is not emulated")
    if token.kind != "directive":
        return
    if _INCLUDE.match(token.text) and not _OF_METAL.match(token.text):
        raise BuildError(f"{where} {token.text.strip()} is not emulated; only <metal_...> headers are")
    if any("*" not in text for text in _THREADGROUP.split(token.text)[1:]):
        raise BuildError(f"{where} a macro with `threadgroup` in it is not emulated, unless it is a pointer's")


def _refuse_what_metal_lacks(tokens: Sequence[_Token], file: str) -> None:
    """What C++ has and Metal has not; in macros too."""
    for at, token in enumerate(tokens):
        where = f"{file}:{token.line}: error:"
        if token.kind == "directive" and _DEFINE.match(token.text):
            _refuse_what_metal_lacks(_tokens(token.text[1:], token.line), file)
        elif token.kind == "word" and _NOT_IN_METAL.fullmatch(token.text) and not _is_name(tokens, at):
            raise BuildError(f"{where} Metal has no `{token.text}`")
        elif token.text == "static" and _is_mutable(tokens, at):
            raise BuildError(f"{where} Metal has no `static` variables but constants")


def _is_name(tokens: Sequence[_Token], at: int) -> bool:
    """Whether `std` is not the library's and `delete` no operator."""
    before, after = _before(tokens, at), _after(tokens, at + 1)
    return (tokens[at].text, before) == ("delete", "=") or (
        tokens[at].text == "std" and after != "::" and before != "namespace"
    )


def _is_mutable(tokens: Sequence[_Token], at: int) -> bool:
    """Whether `static` stands in the declaration of a variable that may change, and not of a function."""
    first = next((token.text for token in tokens[at:] if token.text in _SETTLES_STATIC), "(")
    return first in ("=", ";", "[", "{") and _before(tokens, at) not in ("const", "constexpr", "constant")


def _rewrite(tokens: Sequence[_Token], file: str, depth: int) -> str:
    """`depth` counts braces; below 0 is the space outside functions."""
    out: list[str] = []
    parentheses = at = 0
    while at < len(tokens):
        token, end = tokens[at], at + 1
        if token.kind == "directive":
            out.append("" if _INCLUDE.match(token.text) else _THREADGROUP.sub("", token.text))
        elif token.text == "threadgroup" and _after(tokens, end) != "(":  # not the attribute [[threadgroup(0)]]
            variable = _variable(tokens, at, file) if parentheses == 0 else None
            if variable is not None:
                end = variable
                out.append(_declarations(tokens, at, end, file, depth >= 0))
        else:
            out.append(_number(token.text) if token.kind == "number" else token.text)
            if _is_read_swizzle(tokens, at):
                out.append("->*nf_plain")
        parentheses += (token.text == "(") - (token.text == ")")
        depth += (token.text == "{") - (token.text == "}")
        at = end
    return "".join(out)


def _number(text: str) -> str:
    """Metal has no double: a literal without a suffix is a float. Not every C++ compiler lets a suffix be `bf`."""
    match = _FLOAT.fullmatch(text)
    if match is None:
        return text
    return f"bfloat({match['value']}f)" if match["suffix"] else f"{text}f"


def _is_read_swizzle(tokens: Sequence[_Token], at: int) -> bool:
    """Whether a swizzle (or another member of that name) stands at `at` for its value, and is not assigned to."""
    if not _SWIZZLE_NAME.fullmatch(tokens[at].text) or _before(tokens, at) not in (".", "->"):
        return False
    behind = [token.text for token in tokens[at + 1 : at + 12] if not token.silent]
    return not _BEHIND_LVALUE.match("".join(behind))


def _newlines(tokens: Sequence[_Token]) -> int:
    return sum(token.text.count("\n") for token in tokens)


def _without_alignment(tokens: Sequence[_Token]) -> list[_Token]:
    """Without the `alignas(...)` in front of `threadgroup`: shared storage has it anyway."""
    found: list[_Token] = []
    at = 0
    while at < len(tokens):
        end = _end_of_part(tokens, at) if tokens[at].text == "alignas" else at + 1
        if end > at + 1 and _after(tokens, end) == "threadgroup":
            found.append(_Token("space", "\n" * _newlines(tokens[at:end]), tokens[at].line))
        else:
            found += tokens[at:end]
        at = end
    return found


def _end_of_part(tokens: Sequence[_Token], at: int) -> int:
    """Behind the part of a declaration at `at`: a token, or brackets or template arguments with all in them."""
    text = tokens[at].text
    if text in _BRACKETS_OF_TYPE:
        return _end_of_part(tokens, at + 1 + next((i for i, t in enumerate(tokens[at + 1 :]) if not t.silent), 0))
    close = _CLOSING.get(text)
    at += 1
    while close is not None and at < len(tokens) and tokens[at].text != close:
        compares = tokens[at].text == "<" and close != ">"
        at = at + 1 if compares else _end_of_part(tokens, at)
    return at if close is None else min(at + 1, len(tokens))


def _before(tokens: Sequence[_Token], at: int) -> str:
    found = next((t for t in reversed(tokens[:at]) if not t.silent), None)
    return "" if found is None or found.kind == "directive" else found.text


def _after(tokens: Sequence[_Token], at: int) -> str:
    return next((t.text for t in tokens[at:] if not t.silent), "")


def _variable(tokens: Sequence[_Token], at: int, file: str) -> int | None:
    """Where the declaration that `threadgroup` opens at `at` ends, if it is one of variables and not of a pointer."""
    if _before(tokens, at) in _BEFORE_TYPE:
        return None
    several = False
    index = at + 1
    while index < len(tokens):
        text = tokens[index].text
        pointer = text in ("*", "&") or (text == "(" and _after(tokens, index + 1) in ("*", "&"))
        if pointer and not several:
            return None
        if pointer or text in ("=", "(", "{", ")", "}"):
            raise _refused(tokens, at, file, "no initialiser, and pointers apart from variables")
        if text == ";":
            return index
        several = several or text == ","
        index = _end_of_part(tokens, index)
    return None


def _refused(tokens: Sequence[_Token], at: int, file: str, reason: str) -> BuildError:
    rest = "".join(" " if t.silent else t.text for t in tokens[at:])
    shown = " ".join(rest.partition(";")[0].split())
    return BuildError(f"{file}:{tokens[at].line}: error: `{shown}` is not emulated: {reason}")


def _declarations(tokens: Sequence[_Token], at: int, end: int, file: str, function: bool) -> str:
    """`float a[8], b` as references to shared storage."""
    if not function:
        raise _refused(tokens, at, file, "a threadgroup variable is declared in the kernel")
    if _before(tokens, at) not in _BEFORE_VARIABLE:
        raise _refused(tokens, at, file, "`threadgroup` comes first, after const at most")
    first, *others = _declarators(tokens[at + 1 : end])
    name_at = max((i for i, text in enumerate(first) if re.fullmatch(r"[A-Za-z_]\w*", text)), default=0)
    kind = "".join(first[:name_at]).strip()
    if not kind:
        raise _refused(tokens, at, file, "it has a type and a name")
    made = []
    for declarator in (first[name_at:], *others):
        name, *sizes = "".join(declarator).strip().partition("[")
        name = name.strip()
        # The lambda gives each variable a type of its own, and with [&] cannot stand outside a function.
        made.append(f'auto& {name} = nf_threadgroup<{kind}{"".join(sizes)}>("{name}", [&] {{}});')
    return " ".join(made)[:-1] + "\n" * _newlines(tokens[at:end])


def _declarators(tokens: Sequence[_Token]) -> list[list[str]]:
    """The parts of each declarator: cut at the commas, without alignas and comments."""
    found: list[list[str]] = [[]]
    at = 0
    while at < len(tokens):
        end = _end_of_part(tokens, at)
        if tokens[at].text == ",":
            found.append([])
        elif tokens[at].text != "alignas":
            found[-1].append("".join(" " if t.silent else t.text for t in tokens[at:end]))
        at = end
    return found

"""A variant: one kernel source for an op and a target, with its tunables, in one file.

The file starts with a YAML header between `/*---` and `---*/`; a `// helpers` line may open declarations
that precede the function body, which then starts after a `// body` line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml

from baseline.contract import Contract, Instance, Value, load_contract
from baseline.errors import UsageError
from baseline.expressions import Expression, evaluate, names

SUFFIXES = {"cpu": ".cpp", "metal": ".metal", "cuda": ".cu"}
PLAIN = "plain"  # the variant of each op that is its formula, written down; a search starts from it
METAL = "metal_"  # what the name of a Metal variant begins with among those for CUDA, which runs it through a header

FILE = re.compile(r"\A/\*---\n(?P<header>.*?)\n---\*/\n(?P<code>.*)\Z", re.DOTALL)
_CODE = re.compile(r"\A\s*(?:^// helpers\n(?P<helpers>.*?))?^// body\n(?P<body>.*)\Z", re.DOTALL | re.MULTILINE)
Integer = Annotated[int, pydantic.Strict()]


@dataclass(frozen=True)
class Variant:
    """One parsed variant.

    `tunables` lists the values of each, default first. `launch` gives the launch geometry: {threads} for
    cpu, {grid, threadgroup} of three expressions each for metal and cuda, where grid counts threads.
    `supports` limits constants to these values, the contract's own limits included. `requires` names macros
    that the compiler must define. `traits` names the rewrites that made it of its seed, first to last. The line numbers
    are 1-based. `when` says at which values of others, listed before it, a tunable has a meaning; one that it does not
    name always has one.
    """

    op: str
    target: str
    name: str
    path: Path
    body: str
    helpers: str
    tunables: Mapping[str, tuple[int, ...]]
    launch: Mapping[str, Expression | tuple[Expression, ...]]
    supports: Mapping[str, tuple[Value, ...]]
    requires: tuple[str, ...]
    hypothesis: str
    parent: str | None
    body_line: int
    helpers_line: int
    traits: tuple[str, ...] = ()
    when: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    def meaningful(self, tunables: Mapping[str, int]) -> list[str]:
        """The tunables that have a meaning at these values, in order; none has that depends on one without."""
        found: list[str] = []
        for name in self.tunables:
            conditions = self.when.get(name, {}).items()
            if all(other in found and tunables[other] in allowed for other, allowed in conditions):
                found.append(name)
        return found

    def settled(self, tunables: Mapping[str, int]) -> Mapping[str, int]:
        """These values, but the default of each tunable that has no meaning: the kernel is the same."""
        if not self.when:
            return tunables
        found = self.meaningful(tunables)
        return {name: value if name in found else self.tunables[name][0] for name, value in tunables.items()}

    def supports_instance(self, constants: Instance) -> bool:
        """Whether this variant may be compiled with these constants; the compiler is not asked."""
        return all(constants.get(name) in allowed for name, allowed in self.supports.items())


@dataclass(frozen=True)
class Choice:
    """A variant with one value for each of its tunables. Raises UsageError for any other set of values."""

    variant: Variant
    tunables: Mapping[str, int]

    def __post_init__(self) -> None:
        known = self.variant.tunables
        if self.tunables.keys() != known.keys():
            given = _list(self.tunables)
            raise UsageError(f"{self.variant.path}: got the tunables {given}; it has {_list(known)}")
        for name, value in self.tunables.items():
            if value not in known[name]:
                raise UsageError(f"{self.variant.path}: {name} is {value}; it may be {_list(known[name])}")

    @classmethod
    def defaults(cls, variant: Variant) -> "Choice":
        """The first value of every tunable."""
        return cls(variant, {name: values[0] for name, values in variant.tunables.items()})

    @property
    def threads(self) -> int:
        """The threads that call a CPU kernel."""
        given = self.variant.launch["threads"]
        assert not isinstance(given, tuple)
        return evaluate(given, self.tunables)


@dataclass(frozen=True)
class _Header:
    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    op: str
    target: str
    launch: dict[str, Integer | str | list[Integer | str]]
    hypothesis: str
    tunables: dict[str, list[Integer]] = field(default_factory=dict)
    supports: dict[str, list[Integer | str]] = field(default_factory=dict)
    requires: list[str] = field(default_factory=list)
    parent: str | None = None
    traits: list[str] = field(default_factory=list)
    when: dict[str, dict[str, list[Integer]]] = field(default_factory=dict)


def parse_variant(path: Path, contract: Contract | None = None) -> Variant:
    """Read a variant of `contract`, by default that of the folder above the file's.

    Raises UsageError naming the file and what is wrong with it.
    """
    contract = contract or load_contract(path.parent.parent)
    try:
        text = path.read_text()
        file = FILE.match(text)
        if file is None:
            raise UsageError("it must start with a header between `/*---` and `---*/` lines")
        header = _header(file["header"])
        _check(header, contract)
        return _variant(path, text, file, header, contract)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"variant {path} cannot be read: {' '.join(str(error).split())}") from None
    except pydantic.ValidationError as error:
        raise UsageError(f"variant {path}: {_first_problem(error)}") from None
    except UsageError as error:
        raise UsageError(f"variant {path}: {error}") from None


@cache
def _header(text: str) -> _Header:
    """Parsed once, as contracts are."""
    return pydantic.TypeAdapter(_Header).validate_python(yaml.safe_load(text))


def suffix_of(target: str, name: str) -> str:
    """The suffix of a variant's file, by the variant's name among those of a target."""
    return SUFFIXES["metal" if target == "cuda" and name.startswith(METAL) else target]


def variant_path(kernels: Path, op: str, target: str, name: str) -> Path:
    """The file of a variant in a folder of kernels. A Metal one for CUDA lies beside CUDA's, under its whole name, if a
    search has written or recorded it, and else in Metal's folder."""
    path = kernels / op / target / f"{name}{suffix_of(target, name)}"
    if suffix_of(target, name) == SUFFIXES[target] or path.exists():
        return path
    return kernels / op / "metal" / f"{name.removeprefix(METAL)}{path.suffix}"


def list_variants(kernels: Path, op: str, target: str) -> list[Variant]:
    """The variants of an op for a target, by name; those for CUDA with the Metal ones, as METAL and their name. Raises
    UsageError where one is broken or none exists."""
    contract = load_contract(kernels / op)
    names = [path.stem for path in (kernels / op / target).glob(f"*{SUFFIXES[target]}")]
    if target == "cuda":
        names += [path.stem for path in (kernels / op / target).glob(f"{METAL}*{SUFFIXES['metal']}")]
        names += [f"{METAL}{path.stem}" for path in (kernels / op / "metal").glob(f"*{SUFFIXES['metal']}")]
    if not names:
        raise UsageError(f"{kernels / op / target} holds no {SUFFIXES[target]} file")
    return [named_variant(variant_path(kernels, op, target, name), name, target, contract) for name in sorted({*names})]


def named_variant(path: Path, name: str, target: str, contract: Contract | None = None) -> Variant:
    """`parse_variant` of a file whose variant has this name among those of `target`. Raises UsageError as that does, or
    where it is for another target."""
    variant = parse_variant(path, contract)
    wanted = next(known for known, suffix in SUFFIXES.items() if suffix == suffix_of(target, name))
    if variant.target != wanted:
        raise UsageError(f"variant {path}: its target is {variant.target}, not {wanted}")
    return replace(variant, name=name)


def _variant(path: Path, text: str, file: re.Match[str], header: _Header, contract: Contract) -> Variant:
    code = _CODE.match(file["code"])
    if re.search(r"^// (helpers|body)$", code["body"] if code else file["code"], re.MULTILINE):
        raise UsageError("its code must be a body, or `// helpers`, declarations, `// body` and a body")
    start = file.start("code")
    body_at = start + (code.start("body") if code else 0)
    helpers_at = start + (code.start("helpers") if code and code["helpers"] else 0)
    limits = {name: allowed for name, allowed in contract.constants.items() if allowed}
    return Variant(
        op=header.op,
        target=header.target,
        name=path.stem,
        path=path,
        body=text[body_at:],
        helpers=(code["helpers"] if code else None) or "",
        tunables={name: tuple(values) for name, values in header.tunables.items()},
        launch={key: tuple(given) if isinstance(given, list) else given for key, given in header.launch.items()},
        supports=limits | {name: tuple(values) for name, values in header.supports.items()},
        requires=tuple(header.requires),
        hypothesis=header.hypothesis.strip(),
        parent=header.parent,
        body_line=text.count("\n", 0, body_at) + 1,
        helpers_line=text.count("\n", 0, helpers_at) + 1,
        traits=tuple(header.traits),
        when={name: {n: tuple(v) for n, v in conditions.items()} for name, conditions in header.when.items()},
    )


def _check(header: _Header, contract: Contract) -> None:
    if header.op != contract.op:
        raise UsageError(f"op is {header.op!r}; the contract beside it is {contract.op!r}'s")
    if header.target not in SUFFIXES:
        raise UsageError(f"target is {header.target!r}; it may be {_list(SUFFIXES)}")
    for name, values in header.tunables.items():
        if not (name.isidentifier() and name.isupper()) or name in contract.constants:
            raise UsageError(f"tunable {name} must have a capital name that is no constant of {contract.op}")
        if not values or len(set(values)) < len(values):
            raise UsageError(f"tunable {name} needs a list of different integers, its default first")
    for name, conditions in header.when.items():
        _check_conditions(name, conditions, header.tunables)
    for name, allowed in header.supports.items():
        _check_support(name, allowed, contract)
    _check_launch(header, contract)
    for macro in header.requires:
        if not macro.isidentifier():
            raise UsageError(f"requires names {macro!r}, which is no macro")


def _check_conditions(name: str, conditions: Mapping[str, list[int]], tunables: Mapping[str, list[int]]) -> None:
    """What a tunable depends on is listed before it, so that none depends on itself."""
    if name not in tunables:
        raise UsageError(f"when names {name}; the tunables are {_list(tunables)}")
    before = list(tunables)[: list(tunables).index(name)]
    for other, allowed in conditions.items():
        if other not in before:
            raise UsageError(f"when: {name} depends on {other}; it may depend on those before it: {_list(before)}")
        if not allowed or not set(allowed) <= set(tunables[other]):
            raise UsageError(f"when: {name} needs {other} {_list(allowed)}; it may be {_list(tunables[other])}")


def _check_support(name: str, allowed: list[int | str], contract: Contract) -> None:
    if name not in contract.constants:
        known_names = _list(contract.constants)
        raise UsageError(f"supports names {name}; {contract.op} has the constants {known_names}")
    known = contract.constants[name]
    if not allowed or (known and not set(allowed) <= set(known)):
        raise UsageError(f"supports allows {name} {_list(allowed)}; the contract allows {_list(known)}")


def _check_launch(header: _Header, contract: Contract) -> None:
    if header.target == "cpu":
        _check_threads(header)
        return
    if set(header.launch) != {"grid", "threadgroup"}:
        raise UsageError(f"launch of a {header.target} variant must be {{grid: [x, y, z], threadgroup: [x, y, z]}}")
    known = {*header.tunables, *contract.dims, *contract.constants} - {*contract.type_constants}
    for key, given in header.launch.items():
        _check_geometry(key, given, known)


def _check_threads(header: _Header) -> None:
    if set(header.launch) != {"threads"}:
        raise UsageError("launch of a cpu variant must be {threads: an integer or a tunable}")
    given = header.launch["threads"]
    values = header.tunables.get(given) if isinstance(given, str) else [given]
    if values is None or not all(isinstance(value, int) and value >= 1 for value in values):
        raise UsageError(f"launch: threads is {given!r}; it must be a positive integer or a tunable of such")


def _check_geometry(key: str, given: Any, known: set[str]) -> None:
    """`known` holds the names that an expression may use."""
    if not isinstance(given, list) or len(given) != 3:
        raise UsageError(f"launch: {key} is {given!r}; it must be [x, y, z]")
    for expression in given:
        for name in names(expression):
            if name not in known:
                raise UsageError(f"launch: {key} names {name}; it may name {_list(sorted(known))}")


def _first_problem(error: pydantic.ValidationError) -> str:
    detail: Any = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc'])) or 'header'}: {detail['msg']}"


def _list(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"

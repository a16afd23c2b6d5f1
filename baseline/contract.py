"""A contract: what an op takes and gives, its compile-time constants, its check and bench shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from baseline.errors import UsageError
from baseline.expressions import evaluate, names

ELEMENT_TYPES = ("float32", "float16", "bfloat16", "uint32", "int32")
Value = int | str
Instance = Mapping[str, Value]
"""All constants of one compiled copy of a kernel: sizes, offsets, and the names of element types."""

Key = tuple[tuple[str, Value], ...]


def key(instance: Instance) -> Key:
    """A hashable form of an instance."""
    return tuple(sorted(instance.items()))


_TENSOR = re.compile(r"(\w+)\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Tensor:
    """`type` is an element type or a type constant; `shape` holds expressions over constants and dims."""

    name: str
    type: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One check or bench shape: a value for every constant and every run-time dim."""

    constants: Instance
    dims: Mapping[str, int]


@dataclass(frozen=True)
class Contract:
    """`constants` maps each compile-time constant to the values it may take; () stands for any int >= 0."""

    op: str
    summary: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: Mapping[str, tuple[Value, ...]]
    check: tuple[Case, ...]
    bench: tuple[Case, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """The run-time dims, in order of first appearance in the inputs: the order of the ABI's `dims`."""
        used = [name for tensor in self.inputs for text in tensor.shape for name in names(text)]
        return tuple(dict.fromkeys(name for name in used if name not in self.constants))

    @property
    def type_constants(self) -> tuple[str, ...]:
        """The constants that name an element type."""
        return tuple(n for n, allowed in self.constants.items() if allowed and isinstance(allowed[0], str))

    def element_type(self, tensor: Tensor, instance: Instance) -> str:
        """One of ELEMENT_TYPES."""
        return str(instance.get(tensor.type, tensor.type))

    def shape(self, tensor: Tensor, case: Case) -> tuple[int, ...]:
        """The tensor's shape. Raises UsageError where a division leaves a remainder."""
        values = {n: v for n, v in {**case.constants, **case.dims}.items() if isinstance(v, int)}
        return tuple(evaluate(text, values) for text in tensor.shape)

    def check_instance(self, instance: Instance) -> None:
        """Raises UsageError, naming the constant, unless `instance` gives each constant an allowed value."""
        for name in instance.keys() - self.constants.keys():
            raise UsageError(f"{self.op} has no constant {name}; it has {', '.join(self.constants)}")
        for name, allowed in self.constants.items():
            if name not in instance:
                raise UsageError(f"{self.op}: the constant {name} is missing")
            value = instance[name]
            if allowed and value not in allowed:
                raise UsageError(f"{self.op}: {name} is {value}; it may be {', '.join(map(str, allowed))}")
            if not allowed and (type(value) is not int or value < 0):
                raise UsageError(f"{self.op}: {name} is {value!r}; it must be an integer of at least 0")


def load_contract(folder: Path) -> Contract:
    """Read `folder`/contract.yaml. Raises UsageError naming the file and what is wrong with it."""
    path = folder / "contract.yaml"
    try:
        return _contract(path.read_text(), folder.name)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"contract {path} cannot be read: {' '.join(str(error).split())}") from None
    except UsageError as error:
        raise UsageError(f"contract {path}: {error}") from None


@cache
def _contract(text: str, folder: str) -> Contract:
    """Parsed once: an engine asks for its contracts whenever it is configured, and YAML is slow."""
    contract = _parse(yaml.safe_load(text))
    _check(contract, folder)
    return contract


def _parse(fields: Any) -> Contract:
    keys = ("op", "summary", "inputs", "outputs", "constants", "check", "bench")
    if not isinstance(fields, dict) or sorted(map(str, fields)) != sorted(keys):
        raise UsageError(f"it must be a mapping with the keys {', '.join(keys)}")
    for key in ("inputs", "outputs", "constants"):
        if not isinstance(fields[key], dict) or not fields[key]:
            raise UsageError(f"{key} must be a mapping from names")
    constants = {name: _allowed(name, given) for name, given in fields["constants"].items()}
    return Contract(
        str(fields["op"]),
        str(fields["summary"]),
        tuple(_tensor(name, text) for name, text in fields["inputs"].items()),
        tuple(_tensor(name, text) for name, text in fields["outputs"].items()),
        constants,
        _cases("check", fields["check"], constants),
        _cases("bench", fields["bench"], constants),
    )


def _allowed(name: str, given: Any) -> tuple[Value, ...]:
    if given == "int":
        return ()
    if isinstance(given, list) and given and (_all(given, int) or set(given) <= set(ELEMENT_TYPES)):
        return tuple(given)
    raise UsageError(f"constant {name} must be `int`, a list of integers or a list of element types")


def _tensor(name: str, text: Any) -> Tensor:
    match = _TENSOR.fullmatch(str(text))
    if match is None:
        raise UsageError(f"tensor {name} is {text!r}; it must read like `T[rows, H/2]`")
    return Tensor(name, match[1], tuple(part.strip() for part in match[2].split(",")))


def _cases(key: str, given: Any, constants: Mapping[str, Any]) -> tuple[Case, ...]:
    if not isinstance(given, list) or not given or not _all(given, dict):
        raise UsageError(f"{key} must be a list of mappings from constants and dims to their values")
    return tuple(_case(values, constants) for values in given)


def _case(values: Mapping[str, Any], constants: Mapping[str, Any]) -> Case:
    return Case(
        {name: value for name, value in values.items() if name in constants},
        {name: value for name, value in values.items() if name not in constants},
    )


def _check(contract: Contract, folder: str) -> None:
    if contract.op != folder:
        raise UsageError(f"op is {contract.op!r}, its folder is {folder!r}; they must be equal")
    tensors = contract.inputs + contract.outputs
    every = [tensor.name for tensor in tensors] + list(contract.dims) + list(contract.constants)
    for name in every:
        if not str(name).isidentifier() or every.count(name) > 1:
            raise UsageError(f"{name!r} is not an identifier, or is used twice")
        if str(name).isupper() != (name in contract.constants):
            raise UsageError(f"{name}: constants have capital names, tensors and dims have not")
    for tensor in tensors:
        if tensor.type not in (*ELEMENT_TYPES, *contract.type_constants):
            raise UsageError(f"tensor {tensor.name} is of the unknown type {tensor.type}")
    for case in contract.check + contract.bench:
        _check_case(contract, case)


def _check_case(contract: Contract, case: Case) -> None:
    contract.check_instance(case.constants)
    if set(case.dims) != set(contract.dims) or not all(type(v) is int and v > 0 for v in case.dims.values()):
        wanted = ", ".join(contract.dims)
        raise UsageError(f"a case has the dims {dict(case.dims)}; it needs {wanted}, each positive")
    for tensor in contract.inputs + contract.outputs:
        contract.shape(tensor, case)


def _all(values: list[Any], kind: type) -> bool:
    return all(type(value) is kind for value in values)

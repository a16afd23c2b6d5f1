"""The tools through which the model answers: their arguments as strict schemas, and what is made of them.

A schema keeps to what strict tool use supports: every object is closed, every field required, no mapping has free keys.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import yaml

from harness.candidate import ENGINE_PARTS, IO, LAYOUT
from harness.refutations import CONDITION


class Arguments(pydantic.BaseModel):
    """What a tool takes. The class's docstring is the tool's description."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Condition(Arguments):
    """Another tunable, and its values at which one has a meaning."""

    tunable: str
    values: list[int]


class Tunable(Arguments):
    """A number that the search may turn."""

    name: str = pydantic.Field(description="capital letters; a compile-time constant of the body")
    values: list[int] = pydantic.Field(description="all that may be tried, the default first")
    when: list[Condition] = pydantic.Field(
        description="for one that has a meaning only at some values of others, listed before it; empty for always"
    )


class Support(Arguments):
    """A constant of the contract for some of whose values alone the kernel is written."""

    name: str
    values: list[int | str]


class CpuLaunch(Arguments):
    """How a C++ kernel is launched."""

    threads: int | str = pydantic.Field(description="a number, or the name of a tunable")


class GpuLaunch(Arguments):
    """How a Metal kernel is launched; each of x, y, z is a number or an expression."""

    grid: list[int | str] = pydantic.Field(description="x, y, z: threads in all")
    threadgroup: list[int | str] = pydantic.Field(description="x, y, z: threads of a threadgroup")


class Proposal(Arguments):
    """What every proposal says of itself."""

    hypothesis: str = pydantic.Field(
        description="why this should be faster here, in a sentence or two that a measurement can refute"
    )
    changed_condition: str = pydantic.Field(
        description="for an idea that was refuted before: what is different here; else empty"
    )
    expected_gain: float = pydantic.Field(description="speed-up over the champion that you expect; 1.1 is 10 %")
    parent: str = pydantic.Field(description="the variant that this was made from; empty for none")

    @property
    def claim(self) -> str:
        """The hypothesis with the gain that it expects, and what has changed since the idea lost."""
        claim = f"{self.hypothesis} (expected: {self.expected_gain:.2f}x)"
        changed = f"{CONDITION} {self.changed_condition}" if self.changed_condition.strip() else ""
        return " ".join(f"{claim} {changed}".split())


class ProposeKernel(Proposal):
    """Propose a new kernel for one op. It is built, checked against the oracle, and timed against the champion."""

    op: str
    target: str = pydantic.Field(description="the target of this search")
    name: str = pydantic.Field(description="of the variant: lower-case words joined by _, saying what is new in it")
    helpers: str = pydantic.Field(description="declarations before the function; empty for none")
    body: str = pydantic.Field(description="the body of the function, whose signature comes from the contract")
    tunables: list[Tunable]
    supports: list[Support] = pydantic.Field(description="empty for a kernel that is general")
    requires: list[str] = pydantic.Field(description="macros that the compiler must define, as __AVX512F__; or empty")
    launch: CpuLaunch | GpuLaunch

    def text(self) -> str:
        """The variant's file: its header, its helpers, its body."""
        header: dict[str, Any] = {
            "op": self.op,
            "target": self.target,
            "tunables": {tunable.name: tunable.values for tunable in self.tunables},
            "when": {t.name: {c.tunable: c.values for c in t.when} for t in self.tunables if t.when},
            "launch": self.launch.model_dump(),
            "supports": {support.name: support.values for support in self.supports},
            "requires": self.requires,
            "parent": self.parent or None,
            "hypothesis": self.claim,
        }
        written = yaml.safe_dump({key: value for key, value in header.items() if value}, sort_keys=False, width=110)
        helpers = f"// helpers\n{self.helpers.strip()}\n" if self.helpers.strip() else ""
        return f"/*---\n{written}---*/\n{helpers}// body\n{self.body.strip()}\n"


class ProposeIoPolicy(Proposal):
    """Propose another way to read experts from the disk. It is timed in the whole engine against the champion's."""

    threads: int
    reads_per_expert: int
    cache: str
    schedule: str
    method: str
    stream: str
    prefetch: str

    @property
    def policy(self) -> Mapping[str, int | str]:
        """The fields of `baseline.policy.IoPolicy`."""
        return self.model_dump(exclude=set(Proposal.model_fields))


class ProposeLayout(Proposal):
    """Propose another order or alignment of an expert's tensors in its record. The model is converted into it, and
    timed in the whole engine against the champion's."""

    name: str = pydantic.Field(description="of the layout: lower-case words joined by _, saying what is new in it")
    order: list[str] = pydantic.Field(description="every tensor of an expert once, as the champion's layout lists them")
    align: int = pydantic.Field(description="bytes: a record's length is a multiple; a power of two of at least 4096")
    tensor_align: int = pydantic.Field(description="bytes: where a tensor may begin; a power of two of at most align")


class ReadVariant(Arguments):
    """Read the source of a variant: one of those that the prompt lists, or one that this search has tried."""

    op: str
    name: str


class ReadBuildErrors(Arguments):
    """Read what the compiler said about a candidate."""

    candidate: str = pydantic.Field(description="its id in the history")


class ReadTiming(Arguments):
    """Read a candidate's timing by phase: seconds in each stage, both arms of each block, tokens/s of the engine."""

    candidate: str = pydantic.Field(description="its id in the history")


class ReadSanitizer(Arguments):
    """Read what the check found in a candidate: errors of its outputs, and the sanitizer's report of a Metal kernel."""

    candidate: str = pydantic.Field(description="its id in the history")


class ReadLedger(Arguments):
    """Read rows of the search's ledger, the newest last."""

    op: str = pydantic.Field(description="an op, or io; empty for all")
    status: str = pydantic.Field(description="a status, as kept or wrong; empty for all")
    last: int = pydantic.Field(description="how many rows at most")


TOOLS: Mapping[str, type[Arguments]] = {
    "propose_kernel": ProposeKernel,
    "propose_io_policy": ProposeIoPolicy,
    "propose_layout": ProposeLayout,
    "read_variant": ReadVariant,
    "read_build_errors": ReadBuildErrors,
    "read_timing": ReadTiming,
    "read_sanitizer": ReadSanitizer,
    "read_ledger": ReadLedger,
}


def offered(parts: Sequence[str]) -> Mapping[str, type[Arguments]]:
    """The tools of a search that may change `parts`: ops, "io" and "layout"."""
    lacking = {"propose_kernel"} if set(parts) <= {*ENGINE_PARTS} else set()
    lacking |= set() if IO in parts else {"propose_io_policy"}
    lacking |= set() if LAYOUT in parts else {"propose_layout"}
    return {name: kind for name, kind in TOOLS.items() if name not in lacking}


def schemas(parts: Sequence[str]) -> list[dict[str, Any]]:
    """The tools in the form of the Messages API; the same parts always give the same bytes, so that a cache holds."""
    return [
        {"name": name, "description": _description(kind), "strict": True, "input_schema": _schema(kind)}
        for name, kind in offered(parts).items()
    ]


def parse(name: str, given: object, parts: Sequence[str]) -> Arguments:
    """A call's arguments, validated. ValueError, in one line, for a tool that there is not and for wrong arguments."""
    kind = offered(parts).get(name)
    if kind is None:
        raise ValueError(f"there is no tool {name!r}; there are {', '.join(offered(parts))}")
    try:
        return kind.model_validate(given)
    except pydantic.ValidationError as error:
        problems = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise ValueError(f"{name}: {'; '.join(problems)}") from None


def _description(kind: type[Arguments]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _schema(kind: type[Arguments]) -> dict[str, Any]:
    """The JSON schema without what pydantic adds for people: titles, and docstrings where a description is."""
    schema: Any = _untitled(kind.model_json_schema())
    schema.pop("description", None)
    return dict(schema)


def _untitled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_untitled(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}

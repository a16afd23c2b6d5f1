"""What is proposed, and what each stage of the judge found out about it: one frozen dataclass a stage."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydantic

from baseline.errors import CheckError
from baseline.layout import Layout, check_layout, first_problem
from baseline.variant import Variant
from harness.cache_state import CacheUses

# What `Candidate.changed` says when no op was changed, but the I/O policy, or how the experts lie in their files.
IO = "io"
LAYOUT = "layout"
ENGINE_PARTS = (IO, LAYOUT)  # nothing smaller than the engine can show what they bring
DECODE = "decode"  # in place of an op: of the whole engine, by which those are judged


class Stage(StrEnum):
    """The stages of the judge, cheapest first."""

    BUILD = "build"
    CHECK = "check"
    BENCH = "bench"
    DISPATCH = "dispatch"
    ENGINE = "engine"
    CONFIRM = "confirm"


class Status(StrEnum):
    """How a candidate ended. Only KEPT makes a champion; DISCARDED and TOO_SLOW are honest losers; UNMEASURED is right
    and clean, and waits for a machine that can time it."""

    KEPT = "kept"
    DISCARDED = "discarded"  # no gain could be shown
    TOO_SLOW = "too_slow"  # shown to be slower than the champion
    UNMEASURED = "unmeasured"
    FAILED_BUILD = "failed_build"
    WRONG = "wrong"
    UNSAFE = "unsafe"  # the sanitizer found what a GPU would have passed over in silence
    IMPOSSIBLE = "impossible"  # faster than physics
    DISHONEST = "dishonest"  # what its process tells is not what happened
    CRASHED = "crashed"
    TIMEOUT = "timeout"


MEASURED = (Status.KEPT, Status.DISCARDED, Status.TOO_SLOW)  # against the champion of the time


@dataclass(frozen=True)
class KernelSpec:
    """A variant by name, with a value for each of its tunables."""

    variant: str
    tunables: Mapping[str, int] = field(default_factory=dict)

    def written(self) -> tuple[str, str]:
        """Variant and tunables (JSON), as a ledger holds them."""
        return self.variant, json.dumps(dict(self.tunables), sort_keys=True)

    def settled(self, variant: Variant) -> "KernelSpec":
        """This one with what has no meaning at its default: two that differ in that alone are one."""
        return replace(self, tunables=variant.settled(self.tunables))


@dataclass(frozen=True)
class Configuration:
    """A variant and tunables for each op, an I/O policy (the fields of `baseline.policy.IoPolicy`), and a layout.

    The layout is here whole, so that a record is enough to have it again. None: whichever the packed model has.
    """

    kernels: Mapping[str, KernelSpec]
    io: Mapping[str, int | str] = field(default_factory=dict)
    layout: Layout | None = None

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON types, in the form of a candidate's record."""
        kernels = {op: {"variant": spec.variant, "tunables": dict(spec.tunables)} for op, spec in self.kernels.items()}
        layout = {} if self.layout is None else {"layout": self.layout.to_json()}
        return {"kernels": kernels, "io": dict(self.io), **layout}

    def with_kernel(self, op: str, spec: KernelSpec) -> "Configuration":
        """This configuration with another kernel for `op`."""
        return replace(self, kernels={**self.kernels, op: spec})

    def with_io(self, setting: str, value: int | str) -> "Configuration":
        """This configuration with one I/O setting changed."""
        return replace(self, io={**self.io, setting: value})

    def with_layout(self, layout: Layout) -> "Configuration":
        """This configuration with the experts in another layout."""
        return replace(self, layout=layout)

    def with_part(self, part: str, other: "Configuration") -> "Configuration":
        """This configuration with an op's kernel, the I/O policy or the layout of another one."""
        if part == IO:
            return replace(self, io=other.io)
        if part == LAYOUT:
            return replace(self, layout=other.layout)
        return self.with_kernel(part, other.kernels[part])


def candidate_id(configuration: Configuration, sources: Mapping[str, str]) -> str:
    """The first 12 hex digits of the SHA-256 of the configuration and of each op's source text.

    The sources count, so that an edited variant of the same name is another candidate.
    """
    hashes = {op: hashlib.sha256(text.encode()).hexdigest() for op, text in sources.items()}
    content = json.dumps({"configuration": configuration.to_json(), "sources": hashes}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def identify(configuration: Configuration, variants: Mapping[str, Mapping[str, Variant]]) -> str:
    """The id of a configuration of these variants (by op and name), whose files it reads. Tunables that have no meaning
    beside the others do not count."""
    chosen = {op: variants[op][spec.variant] for op, spec in configuration.kernels.items()}
    kernels = {op: spec.settled(chosen[op]) for op, spec in configuration.kernels.items()}
    sources = {op: variant.path.read_text() for op, variant in chosen.items()}
    return candidate_id(replace(configuration, kernels=kernels), sources)


@dataclass(frozen=True)
class Candidate:
    """A proposed configuration, where it came from, and the one thing that it changes in its parent."""

    id: str
    parent: str
    proposer: str
    hypothesis: str
    configuration: Configuration
    changed: str  # an op's name, 'io' or 'layout'

    def to_json(self) -> dict[str, Any]:
        """The candidate as JSON types: what `candidates/<id>/candidate.json` holds."""
        return {
            "id": self.id,
            "parent": self.parent,
            "proposer": self.proposer,
            "hypothesis": self.hypothesis,
            "changed": self.changed,
            "configuration": self.configuration.to_json(),
        }

    @classmethod
    def from_json(cls, record: Any) -> "Candidate":
        """The inverse of `to_json`. ValueError, saying why in one line, when `record` has another form; UsageError for
        a layout that cannot be."""
        try:
            candidate: Candidate = pydantic.TypeAdapter(cls).validate_python(record)
        except pydantic.ValidationError as error:
            raise ValueError(first_problem(error)) from None
        if candidate.configuration.layout is not None:
            check_layout(candidate.configuration.layout)
        return candidate


def load_record(path: Path) -> Candidate:
    """The candidate in a `candidate.json`. CheckError when it is missing or damaged, UsageError for a layout that
    cannot be."""
    try:
        return Candidate.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CheckError(f"{path}: not a candidate's record ({error})") from error


def changed_part(candidate: Candidate) -> tuple[str, str]:
    """Variant and tunables (JSON) of the kernel that a candidate brings; '' and the I/O policy for an I/O candidate,
    and of a layout its name and what it holds."""
    if candidate.changed == IO:
        return "", json.dumps(dict(candidate.configuration.io), sort_keys=True)
    if candidate.changed == LAYOUT:
        return written_layout(candidate.configuration.layout)
    return candidate.configuration.kernels[candidate.changed].written()


def written_layout(layout: Layout | None) -> tuple[str, str]:
    """Name and content (JSON) of a layout, as a ledger holds them in place of a variant and its tunables."""
    if layout is None:
        return "", ""
    content = {"align": layout.align, "tensor_align": layout.tensor_align, "order": list(layout.order)}
    return layout.name, json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class Speedup:
    """How many times faster than the champion: estimate and its 99 % bounds. 1.0 is no difference."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """For people."""
        return f"{self.value:.3f}x [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Speedup":
        """What a record holds of one: null for a bound that is infinite. KeyError or TypeError for anything else."""
        high = record["high"]
        return cls(float(record["value"]), float(record["low"]), math.inf if high is None else float(high))


@dataclass(frozen=True)
class Failure:
    """Why a stage ended a candidate's way: a status, and one line for the ledger."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Built:
    """Build stage: did it compile?"""

    seconds: float
    failure: Failure | None = None
    log: str = ""


@dataclass(frozen=True)
class Checked:
    """Check stage. `ran`: the process lived; `right`: every output was within its tolerance."""

    ran: bool
    right: bool
    errors: Mapping[str, float]  # largest error of each trial's outputs, in units of their sensitivity
    seconds: float
    failure: Failure | None = None
    findings: tuple[str, ...] = ()  # the sanitizer's
    seed: int = 0  # of the inputs: with it a failure can be had again
    code: str = ""  # hash of the code that was checked
    near: bool = False  # whether it missed its tolerance by little


@dataclass(frozen=True)
class Benched:
    """Bench stage: seconds of a launch in each repetition of both arms, as they were measured, two a block.

    champion_first: for each block whether it was champion, candidate, candidate, champion, or the other way round.
    hidden_s: how much more of a repetition the candidate's process does not tell of than the champion's.
    again: blocks that were left out and measured again, by what disturbed the machine; disturbed: those that count all
        the same (`harness.blocks`). block_s: seconds of a block, with all that is done between its repetitions.
    """

    ran: bool
    champion_s: tuple[float, ...]
    candidate_s: tuple[float, ...]
    speedup: Speedup | None
    seconds: float
    failure: Failure | None = None
    champion_first: tuple[bool, ...] = ()
    hidden_s: float = 0.0
    again: Mapping[str, int] = field(default_factory=dict)
    disturbed: Mapping[str, int] = field(default_factory=dict)
    block_s: float = 0.0


@dataclass(frozen=True)
class Dispatched:
    """Dispatch stage: is the candidate's kernel what the engine runs? By op; it is asked in the engine's process."""

    code: Mapping[str, str]  # hash of the code that the engine loaded
    max_kl: Mapping[str, float]  # KL, in nats, that the watermarked build of the op's kernel makes
    failure: Failure | None = None


@dataclass(frozen=True)
class EngineResult:
    """Engine stage. `right`: the golden outputs were reproduced; tokens/s of both arms, ABBA.

    again, disturbed, block_s: as in `Benched`. apart: each arm was timed in a process of its own.
    """

    ran: bool
    right: bool
    champion_tokens_per_s: tuple[float, ...]
    candidate_tokens_per_s: tuple[float, ...]
    speedup: Speedup | None
    seconds: float
    max_kl: float = 0.0
    failure: Failure | None = None
    dispatched: Dispatched | None = None  # None where no kernel was to be shown to run
    cache_use: CacheUses | None = None  # None where nothing was timed
    again: Mapping[str, int] = field(default_factory=dict)
    disturbed: Mapping[str, int] = field(default_factory=dict)
    apart: bool = False
    block_s: float = 0.0

    @property
    def strayed(self) -> bool:
        """Whether its answers were right, and what it decoded while it was timed was not, or its clock."""
        return self.speedup is not None and self.failure is not None

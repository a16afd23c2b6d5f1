"""What a search is asked to do."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from baseline.errors import UsageError
from baseline.policy import IoPolicy
from baseline.tolerance import Tolerance
from baseline.variant import PLAIN
from harness.cache_state import STATES, WARM
from harness.candidate import ENGINE_PARTS
from harness.isolation import BEST, REQUIRED
from harness.propose.settings import ProposerSettings
from harness.tolerance import FACTOR

# qmatvec first: most of a small model's time is spent there, so that later engine runs are short.
OPS = ("qmatvec", "expert_gate_up", "expert_down", "gated_delta_step")
PARTS = (*OPS, *ENGINE_PARTS)  # all that a search may change
TARGETS = ("cpu", "metal", "cuda")
ALL = "all"
DEFAULT_IO: Mapping[str, int | str] = asdict(IoPolicy())
DEFAULT_JUDGE: Mapping[str, float] = {**asdict(Tolerance()), "factor": FACTOR}


@dataclass(frozen=True)
class SearchSettings:
    """One search. Raises UsageError for a value out of range; the folders are checked by `search`.

    run: the folder that receives the ledger, the study and the candidates.
    packed: the packed model in whose engine candidates are judged; golden: the folder of its recorded answers.
    kernels: the folder of contracts and variants; cache: that of compiled libraries.
    ops: those whose kernels the search may change; "io" stands for the I/O policy, "layout" for that of the experts.
    io: the I/O policy to start from, the fields of `baseline.policy.IoPolicy`.
    judge: the limits that decide what is right, those of conf/judge.
    variants: of `kernels` that may be chosen: "all", or "plain", those that a search starts from, and no layouts.
    state: of the page cache when a decode begins, one of `harness.cache_state.STATES`.
    minutes: for the search itself; a candidate that has begun is finished, and the confirmation comes after it.
    min_gain: the least gain worth keeping, 0.02 is 2 %. timeout_s: wall time of one child process.
    candidates: ends the search after this many, whatever the time.
    sandbox: "best" confines candidates as well as this machine can, "required" refuses to search where a layer lacks.
    proposer: who proposes candidates.
    """

    run: Path
    packed: Path
    kernels: Path
    cache: Path
    golden: Path
    target: str = "cpu"
    ops: tuple[str, ...] = PARTS
    io: Mapping[str, int | str] = field(default_factory=lambda: DEFAULT_IO)
    judge: Mapping[str, float] = field(default_factory=lambda: DEFAULT_JUDGE)
    variants: str = ALL
    state: str = WARM
    minutes: float = 3.0
    min_gain: float = 0.02
    timeout_s: float = 60.0
    seed: int = 0
    resume: bool = False
    candidates: int | None = None
    sandbox: str = BEST
    proposer: ProposerSettings = field(default_factory=ProposerSettings)

    def __post_init__(self) -> None:
        for op in self.ops:
            if op not in PARTS:
                raise UsageError(f"op must be among {', '.join(PARTS)}, got {op!r}")
        if not self.ops:
            raise UsageError(f"a search needs at least one op of {', '.join(PARTS)}")
        if self.target not in TARGETS:
            raise UsageError(f"target must be {', '.join(TARGETS[:-1])} or {TARGETS[-1]}, got {self.target!r}")
        if self.sandbox not in (BEST, REQUIRED):
            raise UsageError(f"sandbox must be {BEST} or {REQUIRED}, got {self.sandbox!r}")
        for name in ("minutes", "timeout_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be more than 0, got {getattr(self, name)}")
        for name in DEFAULT_JUDGE:
            if not self.judge[name] > 0:
                raise UsageError(f"judge.{name} must be more than 0, got {self.judge[name]}")
        if self.variants not in (ALL, PLAIN):
            raise UsageError(f"variants must be {ALL} or {PLAIN}, got {self.variants!r}")
        if self.state not in STATES:
            raise UsageError(f"state must be {', '.join(STATES)}, got {self.state!r}")
        if self.min_gain < 0:
            raise UsageError(f"min_gain must be 0 or more, got {self.min_gain}")
        if self.candidates is not None and self.candidates < 0:
            raise UsageError(f"candidates must be 0 or more, got {self.candidates}")

    @property
    def tolerance(self) -> Tolerance:
        """How far the engine's answers may be from the golden record's."""
        return Tolerance(**{name: limit for name, limit in self.judge.items() if name != "factor"})


def writable(folder: Path) -> Path:
    """`folder`, made if it is missing. UsageError when nothing can be written there."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        os.unlink(probe)
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there ({error.strerror})") from error
    return folder

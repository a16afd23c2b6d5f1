"""Decodes of champion and candidate in turn, on the parent's clock, each in a known state of the page cache."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baseline.manifest import load_manifest
from baseline.probe import memory_bytes
from harness.blocks import CANDIDATE, CHAMPION, Blocks, measure
from harness.cache_state import COLD, WARM, CacheUse, disk_bytes, drop, warm
from harness.contestant import number
from harness.conversation import Conversation

if TYPE_CHECKING:
    from harness.measure import EnginePlan

ENGINE_BYTES = 1 << 30  # of an engine's memory beside the resident weights, generously
MEMORY_SHARE = 0.5  # of the machine's memory for two engines: the page cache holds the experts


@dataclass(frozen=True)
class Decode:
    """Seconds on this process's clock, bytes of experts read, and bytes that came from disks (None: not known)."""

    seconds: float
    read_bytes: float
    disk_bytes: int | None


@dataclass(frozen=True)
class Timed:
    """The decodes of both arms, each of so many tokens, which began in a `state` of the page cache."""

    tokens: int
    state: str
    blocks: Blocks[Decode]

    def tokens_per_s(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each decode, by arm."""
        arms = self.blocks.champion, self.blocks.candidate
        old, new = (tuple(self.tokens / d.seconds for d in arm) for arm in arms)
        return old, new

    def use(self) -> CacheUse:
        """What the candidate read."""
        decodes = self.blocks.candidate
        read, disk = sum(d.read_bytes for d in decodes), [d.disk_bytes for d in decodes]
        known = read > 0 and all(found is not None for found in disk)
        cached = max(0.0, 1 - sum(found or 0 for found in disk) / read) if known else None
        return CacheUse(self.state, read / (self.tokens * len(decodes)), cached)


@dataclass(frozen=True)
class Decodes:
    """The decodes of two arms, in one child (`harness.engine_job`) or in two. `files`: those of the experts."""

    children: Mapping[str, Conversation]
    files: Sequence[Path]
    plan: "EnginePlan"

    def run(self) -> Timed:
        """See `harness.blocks`; each arm decodes once before."""
        for arm in (CHAMPION, CANDIDATE):
            self._decode(arm)
        plan = self.plan
        return Timed(plan.tokens, plan.state, measure(self._decode, plan.blocks, plan.budget_s, plan.gain))

    def _decode(self, arm: str) -> Decode:
        child = self.children[arm]
        if self.plan.state == WARM:
            warm(self.files)
        child.ask("start", arm=arm)
        if self.plan.state == COLD:
            drop(self.files)
        before, started = disk_bytes(child.pid), time.perf_counter()
        said = child.ask("decode", tokens=self.plan.tokens)
        seconds, after = time.perf_counter() - started, disk_bytes(child.pid)
        child.ask("rest")
        disk = after - before if before is not None and after is not None else None
        return Decode(seconds, number(said.get("read_bytes")), disk)


def fit_twice(packed: Path) -> bool:
    """Whether two engines with a packed model fit into this machine's memory beside the page cache."""
    return 2 * (load_manifest(packed).resident.nbytes + ENGINE_BYTES) <= MEMORY_SHARE * memory_bytes()


def apart(job: Mapping[str, Any], folder: Path, timeout_s: float, files: Sequence[Path], plan: "EnginePlan") -> Timed:
    """The decodes of the two arms of an engine's job, each in a new process of its own.

    No code of the candidate is then where the champion runs, and could slow it down. Both engines are held at once,
    for the arms to take turns: `fit_twice` says whether they can be.
    """
    children = {arm: _alone(job, arm, folder, timeout_s) for arm in (CHAMPION, CANDIDATE)}
    with children[CHAMPION], children[CANDIDATE]:
        for child in children.values():
            child.ready()
        return Decodes(children, files, plan).run()


def _alone(job: Mapping[str, Any], arm: str, folder: Path, timeout_s: float) -> Conversation:
    home = folder / arm
    home.mkdir(exist_ok=True)
    return Conversation({**job, "arms": {arm: job["arms"][arm]}}, (arm,), home, timeout_s)

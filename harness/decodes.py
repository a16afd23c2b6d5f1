"""Decodes of champion and candidate in turn, on the parent's clock, each in a known state of the page cache."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.cache_state import COLD, WARM, CacheUse, disk_bytes, drop, warm
from harness.contest import CANDIDATE, CHAMPION, SLOW
from harness.contestant import number
from harness.conversation import Conversation
from harness.keep import log_ratios, settled, speedup

if TYPE_CHECKING:
    from harness.measure import EnginePlan


@dataclass(frozen=True)
class Decode:
    """Seconds on this process's clock, bytes of experts read, and bytes that came from disks (None: not known)."""

    seconds: float
    read_bytes: float
    disk_bytes: int | None


@dataclass
class Timed:
    """The decodes of both arms in the order in which they were measured, two a block, each of so many tokens."""

    tokens: int
    state: str
    champion: list[Decode] = field(default_factory=list)
    candidate: list[Decode] = field(default_factory=list)
    again: int = 0

    def tokens_per_s(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each decode, by arm."""
        old, new = (tuple(self.tokens / d.seconds for d in arm) for arm in (self.champion, self.candidate))
        return old, new

    def ratios(self) -> list[float]:
        """The log-ratio of each block."""
        old, new = ([d.seconds for d in arm] for arm in (self.champion, self.candidate))
        return log_ratios(old, new)

    def use(self) -> CacheUse:
        """What the candidate read."""
        read = sum(d.read_bytes for d in self.candidate)
        disk = [d.disk_bytes for d in self.candidate]
        known = read > 0 and all(found is not None for found in disk)
        cached = max(0.0, 1 - sum(found or 0 for found in disk) / read) if known else None
        return CacheUse(self.state, read / (self.tokens * len(self.candidate)), cached)


@dataclass(frozen=True)
class Decodes:
    """The decodes of a child's two arms (`harness.engine_job`). `files`: those of the experts."""

    child: Conversation
    files: Sequence[Path]
    plan: "EnginePlan"

    def run(self) -> Timed:
        """Blocks, until the gain is shown or shown not to be there, or the plan ends; see `harness.contest`."""
        timed, usual = Timed(self.plan.tokens, self.plan.state), list[float]()
        for arm in (CHAMPION, CANDIDATE):
            self._decode(arm)
        least, most = self.plan.blocks
        end = time.perf_counter() + self.plan.budget_s
        while len(usual) < most:
            first, second = (CHAMPION, CANDIDATE) if secrets.randbits(1) else (CANDIDATE, CHAMPION)
            block = [(arm, self._decode(arm)) for arm in (first, second, second, first)]
            took = sum(found.seconds for _, found in block)
            if len(usual) >= 3 and took > SLOW * median(usual) and timed.again < most:
                timed.again += 1
                continue
            usual.append(took)
            timed.champion += [found for arm, found in block if arm == CHAMPION]
            timed.candidate += [found for arm, found in block if arm == CANDIDATE]
            enough = time.perf_counter() > end or settled(speedup(timed.ratios()), self.plan.gain)
            if len(usual) >= least and enough:
                break
        return timed

    def _decode(self, arm: str) -> Decode:
        if self.plan.state == WARM:
            warm(self.files)
        self.child.ask("start", arm=arm)
        if self.plan.state == COLD:
            drop(self.files)
        before, started = disk_bytes(self.child.pid), time.perf_counter()
        said = self.child.ask("decode", tokens=self.plan.tokens)
        seconds, after = time.perf_counter() - started, disk_bytes(self.child.pid)
        disk = after - before if before is not None and after is not None else None
        return Decode(seconds, number(said.get("read_bytes")), disk)

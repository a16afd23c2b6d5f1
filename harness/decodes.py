"""Decodes of champion and candidate in turn, on the parent's clock, each in a known state of the page cache.

A process of native code stands but for the time that the clock runs, as in `harness.contestant`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baseline.manifest import load_manifest
from baseline.page_cache import between, cached_share, disk_bytes
from baseline.probe import memory_bytes
from harness.blocks import CANDIDATE, CHAMPION, Blocks, measure
from harness.cache_state import COLD, WARM, CacheUse, CacheUses, drop, warm
from harness.candidate import Failure
from harness.clocks import disagreement
from harness.contestant import number
from harness.conversation import Conversation
from harness.costs import Part, spent_on
from harness.decode_check import Said, Text, Texts, check

if TYPE_CHECKING:
    from harness.measure import EnginePlan

Job = Mapping[str, Any]
"""What a process gets that runs arms of the engine: see `harness.engine_job`."""

ENGINE_BYTES = 1 << 30  # of an engine's memory beside the resident weights, generously
MEMORY_SHARE = 0.5  # of the machine's memory for two engines: the page cache holds the experts


@dataclass(frozen=True)
class Decode:
    """Seconds on this process's clock and on that of the engine's, bytes of experts read, and bytes that came from
    disks (None: not known). said: what came after the text, () where the answer held none."""

    seconds: float
    own_seconds: float
    read_bytes: float
    disk_bytes: int | None
    text: Text
    said: tuple[Said, ...]


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

    def uses(self) -> CacheUses:
        """What each arm read."""
        return CacheUses(self._use(self.blocks.champion), self._use(self.blocks.candidate))

    def _use(self, decodes: Sequence[Decode]) -> CacheUse:
        read, disk = sum(d.read_bytes for d in decodes), [d.disk_bytes for d in decodes if d.disk_bytes is not None]
        known = sum(disk) if len(disk) == len(decodes) else None
        return CacheUse(self.state, read / (self.tokens * len(decodes)), cached_share(read, known))


@dataclass(frozen=True)
class Decodes:
    """How both arms decode. `files`: those of each arm's experts."""

    files: Mapping[str, Sequence[Path]]
    texts: Texts
    plan: "EnginePlan"

    def run(self, children: Mapping[str, Conversation]) -> Timed:
        """The decodes of the arms in one child (`harness.engine_job`) or in two: see `harness.blocks`. Each arm decodes
        once before."""

        def once(arm: str) -> Decode:
            return self._decode(children[arm], arm)

        for arm in (CHAMPION, CANDIDATE):
            once(arm)
        plan = self.plan
        return Timed(plan.tokens, plan.state, measure(once, plan.blocks, plan.budget_s, plan.gain))

    def apart(
        self, jobs: Mapping[str, Job], folder: Path, timeout_s: float, tie: float
    ) -> tuple[Timed, Failure | None]:
        """The decodes of each arm of an engine's `jobs` in a new process, and what is wrong with the candidate's.

        No code of the candidate is then where the champion runs, and could slow it down. Both engines are held at once,
        for the arms to take turns: `fit_twice` says whether they can be.
        """
        children = {arm: in_new_process(jobs, arm, folder, timeout_s) for arm in (CHAMPION, CANDIDATE)}
        with children[CHAMPION], children[CANDIDATE]:
            for child in children.values():
                child.ready()
            timed = self.run(children)
            return timed, judge(timed, children[CHAMPION], tie)

    @spent_on(Part.RUNNING)
    def _decode(self, child: Conversation, arm: str) -> Decode:
        text, tokens = self.texts.draw(), self.plan.tokens
        if self.plan.state == WARM:
            warm(self.files[arm])
        child.ask("start", arm=arm, prompt=text.prompt)
        if self.plan.state == COLD:
            drop(self.files[arm])
        before = disk_bytes(child.pid)
        answer, seconds = child.clocked("decode", first=text.first, tokens=tokens)
        after = disk_bytes(child.pid)
        child.ask("rest")
        numbers = seconds, number(answer.get("seconds")), number(answer.get("read_bytes"))
        return Decode(*numbers, between(before, after), text, self.texts.said(answer.get("said"), tokens))


@spent_on(Part.COMPARING)
def judge(timed: Timed, scorer: Conversation, tie: float) -> Failure | None:
    """What is wrong with the candidate's decodes: see `harness.clocks` and `harness.decode_check`."""
    return disagreement(timed.blocks) or check(timed.blocks.candidate, scorer, tie)


def judge_anew(timed: Timed, jobs: Mapping[str, Job], folder: Path, timeout_s: float, tie: float) -> Failure | None:
    """As `judge`, where no process is left that never held the candidate's code."""
    with in_new_process(jobs, CHAMPION, folder, timeout_s) as scorer:
        scorer.ready()
        return judge(timed, scorer, tie)


def fit_twice(packed: Path) -> bool:
    """Whether two engines with a packed model fit into this machine's memory beside the page cache."""
    return 2 * (load_manifest(packed).resident.nbytes + ENGINE_BYTES) <= MEMORY_SHARE * memory_bytes()


def in_new_process(jobs: Mapping[str, Job], arm: str, folder: Path, timeout_s: float) -> Conversation:
    """A new process of an arm's job without the other arm: none of its code is there."""
    home = folder / arm
    home.mkdir(exist_ok=True)
    job = jobs[arm]
    return engine_process({**job, "arms": {arm: job["arms"][arm]}}, home, timeout_s)


def engine_process(job: Job, folder: Path, timeout_s: float) -> Conversation:
    """A process of an engine's job. On a CPU its kernels are native code."""
    return Conversation(job, tuple(job["arms"]), folder, timeout_s, native=job["device"] == "cpu")

"""The bench stage: champion and candidate in turn, each in a process of its own, on the parent's clock."""

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from baseline.errors import CheckError
from baseline.samples import sample_inputs
from harness.build import OpLibrary
from harness.candidate import Benched, Failure, Status
from harness.contestant import Contestant, Ended, Repetition
from harness.keep import log_ratios, settled, speedup
from harness.physics import Floor
from harness.timed_check import TimedCheck
from harness.verify import STATUS

CHAMPION, CANDIDATE = "champion", "candidate"
REPETITION_S = 0.01  # a hundred times what asking for it takes
SLOW = 1.5  # a block that takes so many times the median of those before was disturbed, and is measured again
CLOCKS_AGREE = 0.8  # the least share of the parent's time that an honest process tells of, over the champion's


@dataclass(frozen=True)
class ContestPlan:
    """How many ABBA blocks at least and at most, and the seconds after which no other one begins."""

    blocks: tuple[int, int] = (8, 60)
    budget_s: float = 2.0


@dataclass
class Samples:
    """The repetitions of both arms in the order in which they were measured (ABBA), and the launches of each.

    `again`: blocks that were left out and measured again, because the machine was slow.
    """

    launches: tuple[int, int]
    champion: list[Repetition] = field(default_factory=list)
    candidate: list[Repetition] = field(default_factory=list)
    again: int = 0

    def seconds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of one launch, on the parent's clock."""
        old, new = self.launches
        return tuple(r.seconds / old for r in self.champion), tuple(r.seconds / new for r in self.candidate)

    def own_clock(self) -> float:
        """The share of the parent's time that the candidate's process says it took, over the champion's share."""
        old, new = (median(r.own_seconds / r.seconds for r in arm) for arm in (self.champion, self.candidate))
        return new / max(old, 1e-9)


def bench_inputs(library: OpLibrary, file: Path) -> None:
    """Writes inputs of the contract's bench shape, from a seed that nobody keeps. Each pair has a slot of its own."""
    contract, case = library.contract, library.contract.bench[0]
    arrays = sample_inputs(contract, case, np.random.default_rng(secrets.randbits(128)))
    if "slot" in arrays:
        arrays["slot"] = np.arange(case.dims["p"], dtype=np.int32) % case.dims["s"]
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(file)


@dataclass(frozen=True)
class Contest:
    """Who meets whom, and where.

    inputs: `bench_inputs`'s file. folder: the candidate's; home: the champion's. timeout_s: for an answer of a process.
    noise: the errors that the timed results may have, as `harness.verify` measures them.
    """

    champion: OpLibrary
    candidate: OpLibrary
    inputs: Path
    folder: Path
    home: Path
    timeout_s: float
    floor: Floor
    noise: Mapping[str, float]
    min_gain: float = 0.0
    plan: ContestPlan = ContestPlan()

    def run(self) -> Benched:
        """Times the two until enough is known, and checks what the candidate left in the timed buffers.

        A crash, a timeout, a wrong result or an impossible time of the candidate is data. CheckError when the champion
        does not live.
        """
        started = time.perf_counter()
        samples, failure = None, None
        champion = Contestant(CHAMPION, self.champion, self.inputs, self.home, self.timeout_s)
        try:
            # Both start at the same time.
            with champion, Contestant(CANDIDATE, self.candidate, self.inputs, self.folder, self.timeout_s) as candidate:
                check = TimedCheck(self.candidate, self.inputs, self.folder, candidate.copies, self.noise)
                for contestant in (champion, candidate):
                    contestant.ready()
                    contestant.refresh(check.file)
                samples = self._sample(champion, candidate)
                failure = self._misconduct(samples) or check.run(candidate)
        except Ended as end:
            if end.name == CHAMPION:
                raise CheckError(f"the champion's {self.champion.choice.variant.name} {end.result.reason}") from None
            failure, samples = Failure(STATUS[end.result.status], end.result.reason), None
        return _benched(samples, failure, time.perf_counter() - started)

    def _sample(self, champion: Contestant, candidate: Contestant) -> Samples:
        """ABBA blocks, until the gain is shown or shown not to be there, or the plan ends."""
        samples = Samples((_launches(champion), _launches(candidate)))
        old, new = zip((champion, candidate), samples.launches, strict=True)
        least, most = self.plan.blocks
        usual: list[float] = []
        end = time.perf_counter() + self.plan.budget_s
        while len(usual) < most:
            began = time.perf_counter()
            block = [arm.run(launches) for arm, launches in (old, new, new, old)]
            took = time.perf_counter() - began
            if len(usual) >= 3 and took > SLOW * median(usual) and samples.again < most:
                samples.again += 1
                continue
            usual.append(took)
            samples.champion += [block[0], block[3]]
            samples.candidate += [block[1], block[2]]
            enough = len(usual) >= least
            if enough and (time.perf_counter() > end or settled(speedup(_ratios(samples)), self.min_gain)):
                break
        return samples

    def _misconduct(self, samples: Samples) -> Failure | None:
        """A time that cannot be, or that the candidate's process tells otherwise."""
        agree = samples.own_clock()
        if not CLOCKS_AGREE < agree < 1 / CLOCKS_AGREE:
            reason = f"its process's clock counts {agree:.2f} of the time that passed"
            return Failure(Status.DISHONEST, reason)
        return self.floor.failure(median(samples.seconds()[1]))


def _launches(contestant: Contestant) -> int:
    """How many make a repetition, fixed before the first one that counts."""
    seconds = min(contestant.run(1).seconds for _ in range(2))
    return max(math.ceil(REPETITION_S / seconds), 1)


def _ratios(samples: Samples) -> list[float]:
    return log_ratios(*samples.seconds())


def _benched(samples: Samples | None, failure: Failure | None, seconds: float) -> Benched:
    if samples is None:
        return Benched(False, (), (), None, seconds, failure)
    measured, agree = speedup(_ratios(samples)), samples.own_clock()
    return Benched(True, *samples.seconds(), measured, seconds, failure, agree, samples.again)

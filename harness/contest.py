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
from harness.keep import LEAST_BLOCKS, MOST_BLOCKS, log_ratios, settled, speedup
from harness.physics import Floor
from harness.timed_check import TimedCheck
from harness.tolerance import FACTOR
from harness.verify import STATUS

CHAMPION, CANDIDATE = "champion", "candidate"
REPETITION_S = 0.01  # of the quicker arm at least: a hundred times what asking for it takes
LONGEST_S = 0.1  # of the slower arm at most
SLOW = 1.5  # a block that takes so many times the median of those before was disturbed, and is measured again
HIDDEN_SHARE, HIDDEN_S = 0.25, 2e-3  # how far an honest process's clock may be from the parent's


@dataclass(frozen=True)
class ContestPlan:
    """How many ABBA blocks at least and at most, and the seconds after which no other one begins."""

    blocks: tuple[int, int] = (LEAST_BLOCKS, MOST_BLOCKS)
    budget_s: float = 4.0


@dataclass
class Samples:
    """The repetitions of both arms in the order in which they were measured, two a block, each of so many launches.

    `again`: blocks that were left out and measured again, because the machine was slow.
    """

    launches: int
    champion: list[Repetition] = field(default_factory=list)
    candidate: list[Repetition] = field(default_factory=list)
    champion_first: list[bool] = field(default_factory=list)
    again: int = 0

    def seconds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of one launch, on the parent's clock."""
        champion, candidate = (tuple(r.seconds / self.launches for r in arm) for arm in (self.champion, self.candidate))
        return champion, candidate

    def hidden_s(self) -> float:
        """Seconds of a repetition that the candidate's process does not tell of, beyond those that the champion's does
        not: asking and answering take some."""
        old, new = (median(r.seconds - r.own_seconds for r in arm) for arm in (self.champion, self.candidate))
        return new - old


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
    factor times noise, which `harness.verify` measures: the errors that the timed results may have.
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
    factor: float = FACTOR
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
                given = self.candidate, self.inputs, self.folder
                check = TimedCheck(*given, candidate.copies, self.noise, self.factor)
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
        """Blocks, until the gain is shown or shown not to be there, or the plan ends.

        A coin says for each whether it is ABBA or BAAB: a place in the block that is always the slower one would pass
        for a gain (see `harness.keep.bounds`).
        """
        arms = champion, candidate
        samples = Samples(_launches(*arms))
        least, most = self.plan.blocks
        usual: list[float] = []
        end = time.perf_counter() + self.plan.budget_s
        while len(usual) < most:
            began = time.perf_counter()
            first, second = arms if secrets.randbits(1) else arms[::-1]
            block = [(arm, arm.run(samples.launches)) for arm in (first, second, second, first)]
            took = time.perf_counter() - began
            if len(usual) >= 3 and took > SLOW * median(usual) and samples.again < most:
                samples.again += 1
                continue
            usual.append(took)
            samples.champion_first.append(first is champion)
            samples.champion += [found for arm, found in block if arm is champion]
            samples.candidate += [found for arm, found in block if arm is candidate]
            enough = len(usual) >= least
            if enough and (time.perf_counter() > end or settled(speedup(_ratios(samples)), self.min_gain)):
                break
        return samples

    def _misconduct(self, samples: Samples) -> Failure | None:
        """A time that cannot be, or that the candidate's process tells otherwise."""
        usual, hidden = median(r.seconds for r in samples.candidate), samples.hidden_s()
        if hidden > HIDDEN_SHARE * usual + HIDDEN_S:
            reason = f"its process's clock is {1e3 * hidden:.1f} ms short of the {1e3 * usual:.1f} ms that passed"
            return Failure(Status.DISHONEST, reason)
        return self.floor.failure(median(samples.seconds()[1]))


def _launches(*arms: Contestant) -> int:
    """How many make a repetition of either arm, fixed before the first one that counts: what asking for them takes is
    then the same for both."""
    seconds = [min(arm.run(1).seconds for _ in range(3)) for arm in arms]
    return max(min(math.ceil(REPETITION_S / min(seconds)), int(LONGEST_S / max(seconds))), 1)


def _ratios(samples: Samples) -> list[float]:
    return log_ratios(*samples.seconds())


def _benched(samples: Samples | None, failure: Failure | None, seconds: float) -> Benched:
    if samples is None:
        return Benched(False, (), (), None, seconds, failure)
    measured, order, hidden = speedup(_ratios(samples)), tuple(samples.champion_first), samples.hidden_s()
    return Benched(True, *samples.seconds(), measured, seconds, failure, order, hidden, samples.again)

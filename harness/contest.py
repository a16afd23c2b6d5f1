"""The bench stage: champion and candidate in turn, in one process and then in one each, on the parent's clock."""

import math
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from baseline.elements import Array
from baseline.errors import CheckError
from baseline.mlx_ops import bytes_touched
from baseline.samples import sample_inputs
from harness.blocks import CANDIDATE, CHAMPION, Blocks, measure
from harness.build import OpLibrary
from harness.candidate import Benched, Failure, Status
from harness.clocks import disagreement, hidden_s
from harness.contestant import Contestant, Repetition
from harness.conversation import Ended
from harness.copies import save_copies
from harness.costs import Part, spent_on
from harness.draws import Draw, Draws
from harness.keep import LEAST_BLOCKS, MOST_BLOCKS, speedup
from harness.physics import Floor
from harness.rotation import rotations
from harness.slots import field
from harness.timed_check import Taken, TimedCheck
from harness.tolerance import FACTOR
from harness.verify import STATUS
from harness.witness import Witness

REPETITION_S = 0.01  # of the quicker arm at least: a hundred times what asking for it takes
LONGEST_S = 0.1  # of the slower arm at most
PAIRS = 3  # of processes in which a candidate that would be kept wins or does not
CHECKED = 2  # of the timed repetitions, drawn by lot, whose results are compared: the oracle is slow


@dataclass(frozen=True)
class ContestPlan:
    """How many ABBA blocks at least and at most, and the seconds after which no other one begins.

    apart: in pairs of processes alone, so many blocks in each. No code of one arm is then near the other's.
    """

    blocks: tuple[int, int] = (LEAST_BLOCKS, MOST_BLOCKS)
    budget_s: float = 4.0
    apart: bool = False


APART = ContestPlan(budget_s=1.0)


@dataclass(frozen=True)
class Samples:
    """The repetitions of both arms, each of so many launches."""

    launches: int
    blocks: Blocks[Repetition]

    def seconds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of one launch, on the parent's clock."""
        arms = self.blocks.champion, self.blocks.candidate
        champion, candidate = (tuple(r.seconds / self.launches for r in arm) for arm in arms)
        return champion, candidate

    def of_one(self) -> Blocks[Repetition]:
        """The same blocks, as if each repetition had been one launch."""
        champion, candidate = (
            [Repetition(r.seconds / self.launches, r.own_seconds / self.launches) for r in arm]
            for arm in (self.blocks.champion, self.blocks.candidate)
        )
        return replace(self.blocks, champion=champion, candidate=candidate)


def pooled(pairs: Sequence[Samples]) -> Samples:
    """The samples of several pairs of processes together."""
    together = Blocks[Repetition]()
    for blocks in (samples.of_one() for samples in pairs):
        together.champion += blocks.champion
        together.candidate += blocks.candidate
        together.champion_first += blocks.champion_first
        together.again = Counter(together.again) + Counter(blocks.again)
        together.disturbed = Counter(together.disturbed) + Counter(blocks.disturbed)
        together.seconds += blocks.seconds
    return Samples(1, together)


@spent_on(Part.INPUTS)
def bench_inputs(library: OpLibrary, file: Path) -> None:
    """Writes copies of the inputs of the contract's bench shape (`harness.copies`), from a seed that nobody keeps. Each
    pair has a slot of its own."""
    contract, case = library.contract, library.contract.bench[0]
    random = np.random.default_rng(secrets.randbits(128))
    slots = {"slot": np.arange(case.dims["p"], dtype=np.int32) % case.dims["s"]} if "s" in case.dims else {}
    count = rotations(bytes_touched(contract, case))
    copies = ({**sample_inputs(contract, case, random), **slots} for _ in range(count))
    save_copies(file, {tensor.name: field(contract, tensor) for tensor in contract.inputs}, count, copies)


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
        """Times the two until enough is known, and checks what the candidate made in the timed loop.

        They share a process and all buffers: two processes with the same kernel can differ by more than a gain that is
        looked for. So that the candidate cannot win by slowing the champion down, one that would be kept must win in
        processes of their own too.

        A crash, a timeout, a wrong result or an impossible time of the candidate is data. CheckError when the champion
        does not live by itself.
        """
        started = time.perf_counter()
        samples, failure = None, None
        try:
            if self.plan.apart:
                pairs, failure = self._pairs(self.plan)
                samples = pooled(pairs)
            else:
                samples, failure = self._together()
        except Ended as end:
            if CANDIDATE not in end.who:
                raise CheckError(f"the champion's {self.champion.choice.variant.name} {end.result.reason}") from None
            failure, samples = Failure(STATUS[end.result.status], end.result.reason), None
        return _benched(samples, failure, time.perf_counter() - started)

    def _arms(self) -> dict[str, OpLibrary]:
        return {CHAMPION: self.champion, CANDIDATE: self.candidate}

    def _together(self) -> tuple[Samples, Failure | None]:
        """Both in one process; who wins there must win apart too."""
        with Contestant(self._arms(), self.inputs, self.folder, self.timeout_s) as both:
            match = self._match({CHAMPION: both, CANDIDATE: both})
            samples, failure = self._meet(match, self.plan)
        together = speedup(samples.blocks.ratios())
        if failure is None and together.low > 1 + self.min_gain:
            failure = self._witnessed(match) or self._apart(together.value)
        return samples, failure

    def _apart(self, together: float) -> Failure | None:
        """Several times with each arm in a new process of its own: why the candidate does not win there as well.

        Half of the gain that it had in one process with the champion, `together`, is there in most pairs: a champion
        that was slowed down is as fast as ever by itself. And a gain is shown by all blocks, lest the machine's noise,
        or a process that lies better in memory, be one.
        """
        pairs, failure = self._pairs(APART)
        if failure is not None:
            return failure
        values = [speedup(samples.blocks.ratios()).value for samples in pairs]
        least = speedup(pooled(pairs).blocks.ratios()).low
        if median(values) > max(math.sqrt(together), 1 + self.min_gain) and least > 1:
            return None
        shown = ", ".join(f"{value:.3f}x" for value in values)
        reason = f"no gain in a process of its own: {shown}, at least {least:.3f}x, where {together:.3f}x was claimed"
        return Failure(Status.DISCARDED, reason)

    def _pairs(self, plan: ContestPlan) -> tuple[list[Samples], Failure | None]:
        """The arms in a new process each, PAIRS times. What is wrong with one ends it."""
        pairs = []
        for _ in range(PAIRS):
            processes = {
                CHAMPION: Contestant({CHAMPION: self.champion}, self.inputs, self.home, self.timeout_s),
                CANDIDATE: Contestant({CANDIDATE: self.candidate}, self.inputs, self.folder, self.timeout_s),
            }
            with processes[CHAMPION], processes[CANDIDATE]:
                samples, failure = self._meet(self._match(processes), plan)
            pairs.append(samples)
            if failure is not None:
                break
        return pairs, failure

    def _witnessed(self, match: "Match") -> Failure | None:
        """What the champion, in a new process of its own, says of what the candidate made beside it."""
        if not match.witness.waits:
            return None
        with Contestant({CHAMPION: self.champion}, self.inputs, self.home, self.timeout_s) as champion:
            champion.ready()
            return match.witnessed(champion)

    def _match(self, processes: Mapping[str, Contestant]) -> "Match":
        for process in dict.fromkeys(processes.values()):
            process.ready()
        contract = self.candidate.contract
        check = TimedCheck(self.candidate, self.inputs, self.noise, self.factor)
        return Match(processes, check, Draws(contract, self.inputs), Witness(contract))

    def _meet(self, match: "Match", plan: ContestPlan) -> tuple[Samples, Failure | None]:
        """The samples, and what is wrong with the candidate's part in them."""
        samples = Samples(match.launches, measure(match.timed, plan.blocks, plan.budget_s, self.min_gain))
        too_fast = self.floor.failure(median(samples.seconds()[1]))
        return samples, disagreement(samples.blocks) or match.verdict() or too_fast


class Match:
    """Two arms, wherever they run, and repetitions of equally many launches, each on activations of its own.

    Where each arm has a process of its own, the champion gets the activations that the candidate had before."""

    def __init__(self, processes: Mapping[str, Contestant], check: TimedCheck, draws: Draws, witness: Witness) -> None:
        self._processes, self._check, self._draws, self.witness = processes, check, draws, witness
        self._apart = processes[CHAMPION] is not processes[CANDIDATE]
        self.launches = 1
        seconds = [min(self.repetition(arm).seconds for _ in range(3)) for arm in (CHAMPION, CANDIDATE)]
        # What asking for them takes is then the same for both.
        wanted = min(math.ceil(REPETITION_S / min(seconds)), int(LONGEST_S / max(seconds)))
        self.launches = max(min(wanted, processes[CANDIDATE].slots.count), 1)
        self._seen = 0  # timed repetitions of the candidate
        self._failure: Failure | None = None
        self._taken: dict[int, Taken] = {}
        if self._apart:
            self._lead()

    def _lead(self) -> None:
        """One of the candidate's that does not count, for the champion to make again: something then waits whenever it
        is the champion's turn, and at the end it has next to nothing to make that no clock runs for."""
        process, draw = self._processes[CANDIDATE], self._draws.draw(self.launches)
        self._give(process, CANDIDATE, draw)
        self._run(process, CANDIDATE)
        self.witness.see(draw, process.left(draw.launches))

    def repetition(self, arm: str) -> Repetition:
        """One, on the parent's clock."""
        self._give(self._processes[arm], arm, self._draws.draw(self.launches))
        return self._run(self._processes[arm], arm)

    def timed(self, arm: str) -> Repetition:
        """One that counts."""
        if arm == CANDIDATE:
            return self._watched()
        if not (self._apart and self.witness.waits):
            return self.repetition(CHAMPION)
        champion, draw = self._processes[CHAMPION], self.witness.draw()
        self._give(champion, CHAMPION, draw)
        found = self._run(champion, CHAMPION)
        self._compare(champion, draw)
        return found

    def _watched(self) -> Repetition:
        """The candidate's, which must all be complete, and are all for the witness. CHECKED of them are kept, each as
        likely as the others: nobody knows which when it runs, and none comes after the last that counts."""
        process, draw = self._processes[CANDIDATE], self._draws.draw(self.launches)
        activations = self._give(process, CANDIDATE, draw)
        found = self._run(process, CANDIDATE)
        if self._failure is None:
            self._look(process, draw, activations)
        return found

    @spent_on(Part.COMPARING)
    def _look(self, process: Contestant, draw: Draw, activations: Mapping[str, Array]) -> None:
        self._failure = self._check.look(process, activations)
        self.witness.see(draw, process.left(draw.launches))
        self._seen += 1
        place = self._seen - 1 if self._seen <= CHECKED else secrets.randbelow(self._seen)
        if place < CHECKED:
            self._taken[place] = self._check.take(process, CANDIDATE, activations, draw.first)

    @spent_on(Part.COMPARING)
    def verdict(self) -> Failure | None:
        """What is wrong with what the candidate made in the timed repetitions."""
        failure = self._failure or self._check.judge(self._taken.values())
        return self.witnessed(self._processes[CHAMPION]) if failure is None and self._apart else failure

    @spent_on(Part.COMPARING)
    def witnessed(self, champion: Contestant) -> Failure | None:
        """What is wrong with it beside what `champion` makes of the same, in a process of its own."""
        while self.witness.waits:
            draw = self.witness.draw()
            self._give(champion, CHAMPION, draw)
            champion.rerun(CHAMPION)
            self._compare(champion, draw)
        return self.witness.failure(self._check.limits)

    @spent_on(Part.COMPARING)
    def _compare(self, champion: Contestant, draw: Draw) -> None:
        self.witness.compare(champion.left(draw.launches))

    @spent_on(Part.INPUTS)
    def _give(self, process: Contestant, arm: str, draw: Draw) -> Mapping[str, Array]:
        """Makes an arm's launches ready; what they are given."""
        activations = self._draws.activations(draw)
        process.prepare(arm, activations, draw.first)
        return activations

    @spent_on(Part.RUNNING)
    def _run(self, process: Contestant, arm: str) -> Repetition:
        return process.run(arm)


def _benched(samples: Samples | None, failure: Failure | None, seconds: float) -> Benched:
    if samples is None:
        return Benched(False, (), (), None, seconds, failure)
    blocks, hidden = samples.blocks, hidden_s(samples.blocks)
    measured, order, machine = speedup(blocks.ratios()), tuple(blocks.champion_first), (blocks.again, blocks.disturbed)
    times = samples.seconds()
    return Benched(True, *times, measured, seconds, failure, order, hidden, *machine, block_s=blocks.block_s)

"""The judge: takes one candidate through the stages, cheapest first, until one fails."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from baseline.contract import Instance, load_contract
from baseline.errors import CheckError
from baseline.golden import Fingerprint, Golden, load
from baseline.probe import gpu_gbps, memory_read
from baseline.variant import Choice, Variant
from harness import prepare
from harness.aa import Times, Watch
from harness.build import OpLibrary, build
from harness.candidate import (
    DECODE,
    ENGINE_PARTS,
    LAYOUT,
    Benched,
    Built,
    Candidate,
    Checked,
    Configuration,
    Dispatched,
    EngineResult,
    Failure,
    KernelSpec,
    Speedup,
    Stage,
    Status,
)
from harness.contest import Contest, ContestPlan, bench_inputs
from harness.converted import Converted
from harness.costs import Part, spent_on
from harness.dispatch import Proof, prove
from harness.keep import decide, guard
from harness.measure import UNTIMED, EngineArm, EnginePlan, EngineSetting, run_engine, run_itself
from harness.opening import measure_floor
from harness.physics import Floor
from harness.progress import Observer
from harness.settings import SearchSettings, writable
from harness.targets import Target
from harness.verify import measure_noise, verify

DTYPE = "float32"  # what the engine computes in, and so the golden record
SEED_BITS = 63  # of a check: drawn in this process, told to no other
SEED_TIMEOUTS = 4  # the plain kernels are slow, and check all ops before the first candidate


@dataclass
class Verdict:
    """What the stages found out about a candidate; a stage that was not reached is None."""

    stage: Stage = Stage.BUILD
    built: Built | None = None
    checked: Checked | None = None
    benched: Benched | None = None
    engine: EngineResult | None = None
    failure: Failure | None = None

    @property
    def status(self) -> Status:
        """KEPT when no stage failed."""
        return self.failure.status if self.failure else Status.KEPT


@dataclass
class Judge:
    """Judges the candidates of one search. `scratch` holds what they share: bench inputs, the seed's runs.

    `noise`, by op and backend, is the plain kernels' error; `floors`, by op, what no kernel can be faster than.
    """

    settings: SearchSettings
    target: Target
    variants: Mapping[str, Mapping[str, Variant]]
    observer: Observer
    scratch: Path
    golden: Golden = field(init=False)
    model: Converted = field(init=False)
    noise: dict[tuple[str, str], dict[str, float]] = field(init=False, default_factory=dict)
    floors: dict[str, Floor] = field(init=False, default_factory=dict)
    watch: Watch = field(init=False)
    champion: Candidate = field(init=False)  # that the A/A runs are of

    def __post_init__(self) -> None:
        """Loads the golden record. UsageError or CheckError when it, or the packed model, is not what it should be."""
        self.model = Converted(self.settings.packed, self.settings.cache)
        self.golden = load(self.settings.golden)
        self.golden.fingerprint.require(Fingerprint.here(self.model.manifest.source.fingerprint, DTYPE))
        self.watch = Watch(self._against_itself, self._decode_itself)
        self.contracts = {op: load_contract(self.settings.kernels / op) for op in self.variants}

    @spent_on(Part.BUILDS)
    def build(self, op: str, spec: KernelSpec) -> tuple[Built, list[OpLibrary]]:
        """Builds a kernel for each of the target's backends, until one refuses."""
        libraries: list[OpLibrary] = []
        seconds = 0.0
        for backend in self.target.backends:
            built, library = build(self.choice(op, spec), self.contracts[op], backend, self.settings.cache)
            seconds += built.seconds
            if library is None:
                return replace(built, seconds=seconds), libraries
            libraries.append(library)
        return Built(seconds), libraries

    def choice(self, op: str, spec: KernelSpec) -> Choice:
        """The variant and tunables that a kernel's specification names."""
        return Choice(self.variants[op][spec.variant], spec.tunables)

    def arm(self, configuration: Configuration) -> EngineArm:
        """A configuration as the engine takes it, its model converted. Raises as `Converted.folder`."""
        choices = {op: self.choice(op, spec) for op, spec in configuration.kernels.items()}
        return EngineArm(choices, configuration.io, self.model.folder(configuration.layout))

    def measure_seed(self, seed: Candidate, ops: tuple[str, ...]) -> None:
        """Measures the seed's own errors, which become every candidate's tolerance, and what no kernel can beat.

        CheckError when the seed does not build, crashes or computes nonsense: nothing can be searched from it.
        """
        gbps = self._memory_gbps() if self.target.measures else None
        for op in ops:
            self.observer.on_stage(seed, Stage.CHECK)
            for library in self._sound(op, seed.configuration.kernels[op]):
                timeout_s = SEED_TIMEOUTS * self.settings.timeout_s
                checked = measure_noise(library, secrets.randbits(SEED_BITS), self.scratch, timeout_s)
                if checked.failure is not None:
                    raise CheckError(f"the seed's {op} kernel is not sound: {checked.failure.reason}")
                self.noise[op, library.backend.name] = dict(checked.errors)
            if self.target.measures:
                bench_inputs(library, self.inputs(op))
                self.floors[op] = self._floor(library, gbps)

    @spent_on(Part.MACHINE)
    def open(self, champion: Candidate, ops: tuple[str, ...]) -> None:
        """The A/A runs that open a search, of each op; nothing where nothing is timed. That of the decode comes before
        the first I/O policy or layout: it takes as long as those of all ops while the kernels are plain."""
        self.champion = champion
        for op in ops if self.target.measures else ():
            self.observer.on_noise(self.watch.run(op))

    def check_engine(self, seed: Candidate) -> EngineResult:
        """The seed in the whole engine, untimed. CheckError when it does not answer as the golden record does."""
        self.observer.on_stage(seed, Stage.ENGINE)
        same = seed.configuration
        result = self.engine(same, same, self.scratch, self.golden.quick(), UNTIMED)
        if result.failure is not None:
            raise CheckError(f"the seed is not sound in the engine: {result.failure.reason}")
        return result

    def inputs(self, op: str) -> Path:
        """The file of an op's bench inputs."""
        return self.scratch / f"{op}.bench.npy"

    def evaluate(self, candidate: Candidate, champion: Candidate, folder: Path) -> Verdict:
        """All stages for a candidate that changes one op of the champion, its I/O policy or its layout."""
        verdict, self.champion = Verdict(), champion
        if candidate.changed == LAYOUT:
            self._enter(Stage.BUILD, candidate, verdict)
            with spent_on(Part.BUILDS):
                verdict.built = self.model.build(candidate.configuration.layout)
            verdict.failure = verdict.built.failure
        elif candidate.changed not in ENGINE_PARTS:
            self._evaluate_kernel(candidate, champion, folder, verdict)
        if verdict.failure is None:
            self._evaluate_engine(candidate, champion, folder, verdict)
        return verdict

    def _evaluate_kernel(self, candidate: Candidate, champion: Candidate, folder: Path, verdict: Verdict) -> None:
        op = candidate.changed
        self._enter(Stage.BUILD, candidate, verdict)
        verdict.built, libraries = self.build(op, candidate.configuration.kernels[op])
        if verdict.built.failure is not None:
            verdict.failure = verdict.built.failure
            return
        self._enter(Stage.CHECK, candidate, verdict)
        verdict.checked = self._check(op, libraries, folder)
        if verdict.checked.failure is not None:
            verdict.failure = verdict.checked.failure
            return
        if not self.target.measures:
            verdict.failure = Failure(Status.UNMEASURED, f"right and clean; to be timed on {self.target.elsewhere}")
            return
        self._enter(Stage.BENCH, candidate, verdict)
        verdict.benched = self.bench(op, champion.configuration, libraries[-1], folder, ContestPlan())
        self._see(op, champion.configuration.kernels[op].variant, _times(verdict.benched))
        verdict.failure = verdict.benched.failure or self._decide(op, verdict.benched.speedup)

    def _check(self, op: str, libraries: list[OpLibrary], folder: Path) -> Checked:
        """On each backend in turn, until one finds fault; on inputs that nobody could have known."""
        seconds = 0.0
        for library in libraries:
            noise = self.noise[op, library.backend.name]
            seed, factor = secrets.randbits(SEED_BITS), self.settings.judge["factor"]
            checked = verify(library, noise, seed, folder, self.settings.timeout_s, factor)
            seconds += checked.seconds
            if checked.failure is not None:
                break
        return replace(checked, seconds=seconds)

    def bench(self, op: str, champion: Configuration, candidate: OpLibrary, folder: Path, plan: ContestPlan) -> Benched:
        """One op of the champion against a candidate's kernel, alone.

        One that is faster than physics gets a second chance, against what the machine can do by now: it may have been
        busy when that was measured.
        """
        *_, old = self._sound(op, champion.kernels[op])
        home = writable(self.scratch / "champion")
        where = self.inputs(op), folder, home, self.settings.timeout_s
        judged = self.noise[op, candidate.backend.name], self.settings.min_gain, self.settings.judge["factor"]
        benched = Contest(old, candidate, *where, self.floors[op], *judged, plan).run()
        if benched.failure is None or benched.failure.status is not Status.IMPOSSIBLE:
            return benched
        self.floors[op] = self.floors[op].lowered(self._floor(old, self._memory_gbps()))
        return Contest(old, candidate, *where, self.floors[op], *judged, plan).run()

    @spent_on(Part.MACHINE)
    def _memory_gbps(self) -> float | None:
        return gpu_gbps() if self.target.timed.device == "gpu" else memory_read(self.settings.cache).gbps

    def _floor(self, library: OpLibrary, gbps: float | None) -> Floor:
        """What no kernel of the op of `library` is faster than, where the memory gives `gbps`."""
        return measure_floor(library, gbps, self.inputs(library.contract.op), self.scratch, self.settings.cache)

    def _against_itself(self, op: str, plan: ContestPlan) -> tuple[str, Times]:
        """An A/A run of the champion's kernel of an op. CheckError when it does not live."""
        champion = self.champion.configuration
        *_, library = self._sound(op, champion.kernels[op])
        benched = self.bench(op, champion, library, writable(self.scratch / "itself"), plan)
        if benched.speedup is None:
            raise CheckError(f"the champion's {op} kernel does not run: {_reason(benched.failure)}")
        return champion.kernels[op].variant, _times(benched)

    def _decode_itself(self, plan: EnginePlan) -> tuple[str, Times]:
        """An A/A run of the champion in the whole engine. CheckError when it does not live."""
        folder, timeout_s = writable(self.scratch / "itself"), SEED_TIMEOUTS * self.settings.timeout_s
        plan, arm = replace(plan, state=self.settings.state), self.arm(self.champion.configuration)
        result = run_itself(arm, self.golden.quick(), self._setting(), folder, timeout_s, plan)
        return self.champion.id, _times(result)

    def _see(self, op: str, variant: str, times: Times) -> None:
        if (again := self.watch.see(op, variant, times)) is not None:
            self.observer.on_noise(again)

    def _evaluate_engine(self, candidate: Candidate, champion: Candidate, folder: Path, verdict: Verdict) -> None:
        self._enter(Stage.ENGINE, candidate, verdict)
        whole = candidate.changed in ENGINE_PARTS
        if whole and self.watch.latest(DECODE) is None:
            self.observer.on_noise(self.watch.run(DECODE))
        # An I/O policy or a layout must gain; a kernel that gained alone must only not slow the engine down.
        gain = self.settings.min_gain if whole else -self.settings.min_gain
        plan = EnginePlan(gain=gain, state=self.settings.state)
        result = self.engine(candidate.configuration, champion.configuration, folder, self.golden.quick(), plan)
        verdict.engine = result
        if whole:
            self._see(DECODE, champion.id, _times(result))
        if result.dispatched is not None and result.dispatched.failure is not None:
            verdict.stage = Stage.DISPATCH
        if result.failure is not None or result.speedup is None:
            verdict.failure = result.failure
        elif whole:
            verdict.failure = self._decide(DECODE, result.speedup)
        else:
            verdict.failure = guard(result.speedup, self.settings.min_gain)

    def engine(
        self,
        candidate: Configuration,
        champion: Configuration,
        folder: Path,
        golden: Golden,
        plan: EnginePlan,
    ) -> EngineResult:
        """A configuration in the whole engine, against the champion's; what it changes is shown to run."""
        setting, timeout_s = self._setting(), SEED_TIMEOUTS * self.settings.timeout_s
        old, new = self.arm(champion), self.arm(candidate)
        changed = [op for op, spec in candidate.kernels.items() if spec != champion.kernels.get(op)]
        proof = self._proof({op: new.choices[op] for op in changed}, prepare.instances(setting.of(new), old))
        if isinstance(proof, Failure):
            return EngineResult(False, False, (), (), None, 0.0, math.inf, proof, Dispatched({}, {}, proof))
        return run_engine(old, new, golden, setting, folder, timeout_s, plan, proof)

    def _setting(self) -> EngineSetting:
        settings, device = self.settings, self.target.timed.device
        return EngineSetting(settings.packed, settings.kernels, settings.cache, device, settings.tolerance)

    def _proof(self, choices: Mapping[str, Choice], instances: Mapping[str, Sequence[Instance]]) -> Proof | Failure:
        """What shows that these kernels are what the engine runs, in a model with these `instances`."""
        if not choices:
            return Proof({})
        return prove(choices, self.contracts, instances, self.target.timed, self.settings.cache)

    def _decide(self, op: str, measured: Speedup | None) -> Failure | None:
        return decide(measured, self.settings.min_gain, self.watch.least_gain(op)) if measured else None

    def _enter(self, stage: Stage, candidate: Candidate, verdict: Verdict) -> None:
        verdict.stage = stage
        self.observer.on_stage(candidate, stage)

    def _sound(self, op: str, spec: KernelSpec) -> list[OpLibrary]:
        built, libraries = self.build(op, spec)
        if built.failure is not None:
            raise CheckError(f"{op}/{spec.variant} no longer builds: {built.failure.reason}")
        return libraries


def _times(found: Benched | EngineResult) -> Times:
    if isinstance(found, Benched):
        return Times(found.champion_s, found.candidate_s, found.block_s)
    old, new = ([1 / speed for speed in arm] for arm in (found.champion_tokens_per_s, found.candidate_tokens_per_s))
    return Times(old, new, found.block_s)


def _reason(failure: Failure | None) -> str:
    return failure.reason if failure else "was not measured"

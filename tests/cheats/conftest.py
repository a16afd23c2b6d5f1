"""One judge for a module's cheats: what a search measures before its first candidate is measured once."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import baseline
from baseline.contract import load_contract
from baseline.variant import Choice, parse_variant
from harness import judge as judging
from harness.candidate import Candidate, KernelSpec, Stage, Status
from harness.contest import ContestPlan
from harness.judge import Judge, Verdict
from harness.loop import seed_candidate
from harness.progress import Silent
from harness.settings import SearchSettings
from harness.shelf import usable_variants
from harness.targets import Target
from tests.harness.conftest import KERNELS, cut_kernels, golden, packed  # noqa: F401
from tests.harness.short_runs import shorten

CHEATS = Path(__file__).parent
SHORT = ContestPlan(blocks=(9, 12), budget_s=2.0)
TIMEOUT_S = 6.0
LOSERS = (Status.KEPT, Status.DISCARDED, Status.TOO_SLOW)  # right, however fast


class Bench:
    """Takes a kernel's file through the stages of a search that has just begun, in the judge's order."""

    def __init__(self, settings: SearchSettings, target: Target, scratch: Path, ops: tuple[str, ...]) -> None:
        self.judge = Judge(settings, target, usable_variants(settings, target), Silent(), scratch)
        self.seed = seed_candidate(self.judge.variants, settings.io)
        self.judge.measure_seed(self.seed, ops)
        self._runs = settings.run / "candidates"
        (self._runs / "other").mkdir(parents=True)
        (self._runs / "other" / "candidate.json").write_text("{}")

    def judged(self, file: Path, op: str, timeout_s: float = TIMEOUT_S, to: Stage = Stage.BENCH) -> Verdict:
        """The verdict on the kernel of `op` in `file`, whose champion is the seed's.

        A cheat may know the machine: BASELINE/ and RUN/ in its text are the folders of the package and of this run.
        to: DISPATCH or ENGINE go on to the engine with what is right, whether a gain was shown or not.
        """
        judge, target = self.judge, self.judge.settings.target
        copy = judge.settings.kernels / op / target / file.name
        copy.parent.mkdir(exist_ok=True)
        known = {"BASELINE": Path(baseline.__file__).parent, "RUN": self._runs.parent}
        copy.write_text(re.sub(r"\b(BASELINE|RUN)/", lambda found: f"{known[found[1]]}/", file.read_text()))
        variant = parse_variant(copy, load_contract(copy.parent.parent))
        judge.variants[op][variant.name] = variant
        spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
        configuration = self.seed.configuration.with_kernel(op, spec)
        candidate = Candidate(variant.name, self.seed.id, "red team", variant.hypothesis, configuration, op)
        folder = self._runs / f"{op}.{variant.name}"
        folder.mkdir()
        judge.settings = dataclasses.replace(judge.settings, timeout_s=timeout_s)
        verdict = Verdict()
        judge._evaluate_kernel(candidate, self.seed, folder, verdict)
        if to in (Stage.DISPATCH, Stage.ENGINE) and verdict.status in LOSERS:
            judge._evaluate_engine(candidate, self.seed, folder, verdict)
        return verdict


@pytest.fixture(scope="session")
def make_bench(tmp_path_factory, packed, golden, cache) -> Callable[..., Bench]:  # noqa: F811
    """Builds a `Bench` for a target."""

    def make(target: Target, ops: tuple[str, ...], prepare: Callable[[Path], None] = lambda kernels: None) -> Bench:
        root = tmp_path_factory.mktemp(f"bench-{target.name}")
        kernels = cut_kernels(root / "kernels")
        prepare(kernels)
        settings = SearchSettings(root / "run", packed, kernels, cache, golden, target.name, ops, timeout_s=TIMEOUT_S)
        scratch = root / "scratch"
        scratch.mkdir()
        return Bench(settings, target, scratch, ops)

    return make


@pytest.fixture(scope="package", autouse=True)
def short_measurements():
    """Contests and engine runs that say that a kernel was timed, and hardly how fast it is; here alone."""
    patch = pytest.MonkeyPatch()
    shorten(patch.setattr)
    patch.setattr(judging, "ContestPlan", lambda: SHORT)
    yield
    patch.undo()

"""The engine stage: two arms side by side in a child, what they answer, and their speeds reduced to a speed-up."""

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baseline.errors import CheckError
from baseline.golden import Golden, compare
from baseline.questions import Answers
from baseline.targets.compiler import BuildError
from baseline.tolerance import Tolerance
from baseline.variant import Choice
from harness import dispatch, prepare
from harness.blocks import CANDIDATE, CHAMPION
from harness.build import first_error
from harness.cache_state import WARM, expert_files
from harness.candidate import Dispatched, EngineResult, Failure, Status
from harness.conversation import Conversation, Ended
from harness.costs import Part, spent_on
from harness.decode_check import Texts
from harness.decodes import Decodes, Job, Timed, engine_process, fit_twice, in_new_process, judge, judge_anew
from harness.dispatch import Proof
from harness.keep import LEAST_BLOCKS, log_ratios, speedup
from harness.verify import STATUS


@dataclass(frozen=True)
class EnginePlan:
    """Blocks of decodes, at least and at most, and the seconds after which no other one begins: none, nothing is timed.

    tokens: of each decode; prompt: of the prompt before it. gain: what is to be shown or refuted. state: of the page
    cache (`harness.cache_state`). apart: each arm decodes in a process of its own, where memory allows it.
    """

    blocks: tuple[int, int] = (LEAST_BLOCKS, 30)
    budget_s: float = 10.0
    tokens: int = 12
    prompt: int = 8
    gain: float = 0.0
    state: str = WARM
    apart: bool = False
    timeout_s: float | None = None  # None: the search's


UNTIMED = EnginePlan(blocks=(0, 0))
NO_ROOM = "right; to be timed where memory holds two engines, one with each layout"


@dataclass(frozen=True)
class EngineArm:
    """What the engine is configured with. packed: the model in a layout of the arm's own; None: the setting's."""

    choices: Mapping[str, Choice]
    io: Mapping[str, int | str]
    packed: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """As the child's job wants it."""
        choices = {
            op: {"path": str(choice.variant.path.resolve()), "tunables": dict(choice.tunables)}
            for op, choice in self.choices.items()
        }
        return {"choices": choices, "io": dict(self.io)}


@dataclass(frozen=True)
class EngineSetting:
    """Where the engine stage finds things: packed model, contracts and variants, compiled libraries; MLX's device; how
    far answers may be from the golden ones."""

    packed: Path
    kernels: Path
    cache: Path
    device: str
    tolerance: Tolerance

    def of(self, arm: EngineArm) -> "EngineSetting":
        """The same with an arm's model."""
        return replace(self, packed=arm.packed or self.packed)


def run_engine(
    champion: EngineArm,
    candidate: EngineArm,
    golden: Golden,
    setting: EngineSetting,
    folder: Path,
    timeout_s: float,
    plan: EnginePlan,
    proof: Proof,
) -> EngineResult:
    """Compares the candidate's answers with the golden ones, and times its decode against the champion's.

    Arms whose models lie in other layouts run in a process each: an engine has one model.
    `proof`: the ops that are to be shown to run, none for an I/O policy or a layout (see `harness.dispatch`).
    Decodes that are not what the champion says, or not by its process's clock what passed, are made again, once, with
    new texts, and those alone count: in one of a few hundred texts two experts tie, so that honest rounding takes the
    other one, and who waits for a core on a busy machine does not see it on its own clock.

    A crash, a timeout or a wrong answer is data. CheckError when the champion does not live by itself.
    """
    started = time.perf_counter()
    arms = {CHAMPION: champion, CANDIDATE: candidate}
    try:
        stage = _Stage(arms, golden, setting, folder, plan.timeout_s or timeout_s, plan, proof)
        result = stage.run()
        if result.strayed:
            result = stage.run()
    except BuildError as error:
        result = _failed(Failure(Status.FAILED_BUILD, first_error(str(error))))
    except Ended as ended:
        if CANDIDATE not in ended.who:
            raise CheckError(f"the champion's configuration {ended.result.reason} in the engine") from None
        result = _failed(Failure(STATUS[ended.result.status], ended.result.reason))
    return replace(result, seconds=time.perf_counter() - started)


def run_itself(
    arm: EngineArm, golden: Golden, setting: EngineSetting, folder: Path, timeout_s: float, plan: EnginePlan
) -> EngineResult:
    """The decodes of a configuration that was found right, against itself in one process: nothing but their noise.

    CheckError when it does not live.
    """
    arms = {CHAMPION: arm, CANDIDATE: arm}
    stage = _Stage(arms, golden, setting, folder, plan.timeout_s or timeout_s, plan, Proof({}))
    try:
        timed = stage.decoded()
    except Ended as ended:
        raise CheckError(f"the champion's configuration {ended.result.reason} in the engine") from None
    return _with_times(EngineResult(True, True, (), (), None, 0.0), timed, None, alone=False)


def _failed(
    failure: Failure, ran: bool = False, max_kl: float = math.inf, dispatched: Dispatched | None = None
) -> EngineResult:
    return EngineResult(ran, False, (), (), None, 0.0, max_kl, failure, dispatched)


@dataclass(frozen=True)
class _Stage:
    """See `run_engine`; all that may end a child raises here."""

    arms: Mapping[str, EngineArm]
    golden: Golden
    setting: EngineSetting
    folder: Path
    timeout_s: float
    plan: EnginePlan
    proof: Proof

    def run(self) -> EngineResult:
        differ = len({self.setting.of(arm).packed for arm in self.arms.values()}) > 1
        alone = (differ or self.plan.apart) and fit_twice(self.setting.packed)
        jobs, decodes, timed = self._jobs(differ), self._decodes(), None
        for stale in (self._answers(), *self.folder.glob("dispatch.*.safetensors")):
            stale.unlink(missing_ok=True)
        judged = self.folder, self.timeout_s, self.setting.tolerance.tie
        with self._scorer(jobs, alone) as scorer:
            with engine_process({**jobs[CANDIDATE], **self._asked()}, self.folder, self.timeout_s) as child:
                child.ready()
                result = self._answered(child)
                if not result.right or not self.plan.blocks[1]:
                    return result
                if differ and not alone:
                    return replace(result, failure=Failure(Status.UNMEASURED, NO_ROOM))
                if scorer is not None:
                    scorer.ready()  # from here on it stands until it is asked
                if not alone:
                    timed = decodes.run(dict.fromkeys(self.arms, child))
            if timed is None:
                timed, failure = decodes.apart(jobs, *judged)
            else:
                failure = judge(timed, scorer, judged[-1]) if scorer else judge_anew(timed, jobs, *judged)
        return _with_times(result, timed, failure, alone)

    def _scorer(self, jobs: Mapping[str, Job], alone: bool) -> AbstractContextManager[Conversation | None]:
        """The champion's process that is to judge the decodes, where it can be started beside the candidate's: that
        takes as long as the decodes do."""
        if alone or not self.plan.blocks[1] or not fit_twice(self.setting.packed):
            return nullcontext()
        return in_new_process(jobs, CHAMPION, self.folder, self.timeout_s)

    def decoded(self) -> Timed:
        """The decodes alone, of arms that have one model, in one process; nothing is asked or judged."""
        with engine_process(self._jobs(differ=False)[CHAMPION], self.folder, self.timeout_s) as child:
            child.ready()
            return self._decodes().run(dict.fromkeys(self.arms, child))

    def _jobs(self, differ: bool) -> dict[str, Job]:
        """What a process gets that is to run an arm: all arms of its model. BuildError when a kernel does not build."""
        if differ:
            return {name: self._job({name: arm}) for name, arm in self.arms.items()}
        return dict.fromkeys(self.arms, self._job(self.arms))

    def _job(self, arms: Mapping[str, EngineArm]) -> Job:
        setting = self.setting.of(next(iter(arms.values())))
        files = prepare.files(setting, arms.values())
        return {
            **files,
            "libraries": [*files["libraries"], *self.proof.libraries],
            "compiled": [*files["compiled"], *self.proof.compiled],
            "kind": "engine",
            "device": setting.device,
            "packed": str(setting.packed.resolve()),
            "kernels": str(setting.kernels.resolve()),
            "cache": str(setting.cache.resolve()),
            "arms": {name: arm.to_json() for name, arm in arms.items()},
            "prompt": list(self.golden.questions.prompts[0].tokens[: self.plan.prompt]),
        }

    def _decodes(self) -> Decodes:
        texts = Texts.of(self.golden, self.plan.prompt)
        files = {name: expert_files(self.setting.of(arm).packed) for name, arm in self.arms.items()}
        return Decodes(files, texts, self.plan)

    def _asked(self) -> dict[str, Any]:
        """What is asked of the candidate, and the files for its answers."""
        return {
            "questions": self.golden.questions.to_json(),
            "answers": str(self._answers().resolve()),
            "question": dispatch.question(self.golden.questions).to_json(),
            "plain": str(dispatch.answers_file(self.folder, "").resolve()),
            "watermarked": self.proof.to_json(self.folder),
        }

    def _answers(self) -> Path:
        return self.folder / "engine.answers.safetensors"

    def _answered(self, child: Conversation) -> EngineResult:
        """The candidate's answers against the golden ones, once it is shown to be what runs."""
        with spent_on(Part.RUNNING):
            code = child.ask("answer", arm=CANDIDATE).get("code")
        child.fetch()
        return self._judged(code)

    @spent_on(Part.COMPARING)
    def _judged(self, code: Any) -> EngineResult:
        """`code`: what the process says it loaded."""
        tolerance, dispatched = self.setting.tolerance, None
        if self.proof.code:
            dispatched = dispatch.judge(self.proof, code, self.folder, tolerance)
            if dispatched.failure is not None:
                return _failed(dispatched.failure, True, dispatched=dispatched)
        try:
            given = Answers.load(self._answers())
        except ValueError as error:
            return _failed(Failure(Status.CRASHED, f"left no answers: {error}"), dispatched=dispatched)
        report = compare(self.golden, given, tolerance)
        if not report.ok:
            return _failed(Failure(Status.WRONG, f"golden: {report.reason}"), True, report.max_kl, dispatched)
        return EngineResult(True, True, (), (), None, 0.0, report.max_kl, None, dispatched)


def _with_times(result: EngineResult, timed: Timed, failure: Failure | None, alone: bool) -> EngineResult:
    """A right engine's result with its decodes, and with what is wrong with them."""
    old, new = timed.tokens_per_s()
    return replace(
        result,
        right=failure is None,
        champion_tokens_per_s=old,
        candidate_tokens_per_s=new,
        speedup=speedup(log_ratios(new, old)),  # speeds: the inverse of times
        failure=failure,
        cache_use=timed.uses(),
        again=timed.blocks.again,
        disturbed=timed.blocks.disturbed,
        apart=alone,
        block_s=timed.blocks.block_s,
    )

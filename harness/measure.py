"""The engine stage: two arms side by side in a child, what they answer, and their speeds reduced to a speed-up."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from harness.decodes import Decodes, Timed, apart, fit_twice
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


@dataclass(frozen=True)
class EngineArm:
    """What the engine is configured with."""

    choices: Mapping[str, Choice]
    io: Mapping[str, int | str]

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

    `proof`: the ops that are to be shown to run, none for an I/O policy (see `harness.dispatch`).

    A crash, a timeout or a wrong answer is data. CheckError when the champion does not live by itself.
    """
    started = time.perf_counter()
    answers = folder / "engine.answers.safetensors"
    for stale in (answers, *folder.glob("dispatch.*.safetensors")):
        stale.unlink(missing_ok=True)
    limit_s = plan.timeout_s or timeout_s
    job: dict[str, Any] = {
        "kind": "engine",
        "device": setting.device,
        "packed": str(setting.packed.resolve()),
        "kernels": str(setting.kernels.resolve()),
        "cache": str(setting.cache.resolve()),
        "arms": {CHAMPION: champion.to_json(), CANDIDATE: candidate.to_json()},
        "prompt": list(golden.questions.prompts[0].tokens[: plan.prompt]),
    }
    asked = {
        "questions": golden.questions.to_json(),
        "answers": str(answers.resolve()),
        "question": dispatch.question(golden.questions).to_json(),
        "plain": str(dispatch.answers_file(folder, "").resolve()),
        "watermarked": proof.to_json(folder),
    }
    try:
        files = prepare.files(setting, (champion, candidate))
        job |= {**files, "libraries": [*files["libraries"], *proof.libraries]}
    except BuildError as error:
        failure = Failure(Status.FAILED_BUILD, first_error(str(error)))
        return EngineResult(False, False, (), (), None, time.perf_counter() - started, math.inf, failure)
    dispatched: Dispatched | None = None
    alone, experts = plan.apart and fit_twice(setting.packed), expert_files(setting.packed)

    def end(ran: bool, failure: Failure | None, max_kl: float = math.inf, timed: Timed | None = None) -> EngineResult:
        old, new = timed.tokens_per_s() if timed else ((), ())
        measured = speedup(log_ratios(new, old)) if old else None  # speeds: the inverse of times
        seconds, use = time.perf_counter() - started, timed.use() if timed else None
        right = ran and failure is None
        machine = (timed.blocks.again, timed.blocks.disturbed) if timed else ({}, {})
        where = (*machine, timed is not None and alone)
        return EngineResult(ran, right, old, new, measured, seconds, max_kl, failure, dispatched, use, *where)

    try:
        with Conversation(job | asked, (CHAMPION, CANDIDATE), folder, limit_s) as child:
            child.ready()
            code = child.ask("answer", arm=CANDIDATE).get("code")
            child.fetch()
            if proof.code:
                dispatched = dispatch.judge(proof, code, folder, setting.tolerance)
                if dispatched.failure is not None:
                    return end(True, dispatched.failure)
            try:
                given = Answers.load(answers)
            except ValueError as error:
                return end(False, Failure(Status.CRASHED, f"left no answers: {error}"))
            report = compare(golden, given, setting.tolerance)
            if not report.ok:
                return end(True, Failure(Status.WRONG, f"golden: {report.reason}"), report.max_kl)
            timed = None
            if plan.blocks[1] and not alone:
                timed = Decodes(dict.fromkeys((CHAMPION, CANDIDATE), child), experts, plan).run()
        if plan.blocks[1] and alone:
            timed = apart(job, folder, limit_s, experts, plan)
        return end(True, None, report.max_kl, timed)
    except Ended as ended:
        if CANDIDATE not in ended.who:
            raise CheckError(f"the champion's configuration {ended.result.reason} in the engine") from None
        return end(False, Failure(STATUS[ended.result.status], ended.result.reason))

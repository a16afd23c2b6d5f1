"""The dispatch stage: is a candidate's kernel what the engine runs?

A watermarked build of the same source, tunables and constants gives other results, so the engine's logits must change
by far more than the golden record's tolerance. On the CPU it runs the whole body and then flips the signs of what it
made; a Metal function returns at once, because nothing that stands behind its body is sure to run.

The questions are put in the engine's own process, which has the model loaded. The libraries are built here before, and
their hashes compared with those of what that process loaded. Not covered: code that finds out in which library it is.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.contract import Contract, Instance
from baseline.durable import code_hash
from baseline.engine.kernels import supported_by
from baseline.golden import kl_divergence
from baseline.questions import Answers, Prompt, Questions
from baseline.targets.compiler import BuildError
from baseline.tolerance import Tolerance
from baseline.variant import Choice
from harness.build import first_error
from harness.candidate import Dispatched, Failure, Status
from harness.costs import Part, spent_on
from harness.launch import code_file
from harness.targets import Backend, Entry

FAR = 100.0  # times the golden tolerance: no rounding makes such a difference
NOT_RUN = "the engine does not run this kernel"


@dataclass(frozen=True)
class Proof:
    """What is to be shown of each op: the hashes of its code and of its watermarked build; `libraries`: their files;
    `compiled`: the folders of what NVRTC made of them."""

    code: Mapping[str, tuple[str, str]]
    libraries: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()

    def to_json(self, folder: Path) -> dict[str, str]:
        """As the engine's job wants it: where each op's watermarked answers go."""
        return {op: str(answers_file(folder, op).resolve()) for op in self.code}


def answers_file(folder: Path, op: str) -> Path:
    """Where the answers of an op's watermarked build go; '' for the candidate's own."""
    return folder / f"dispatch.{op or 'plain'}.safetensors"


def question(questions: Questions) -> Questions:
    """One token, from an empty cache: it runs all that decoding runs."""
    prompt = Prompt(questions.prompts[0].tokens[:1], (0,), questions.prompts[0].tokens[1:2])
    return Questions((prompt,), (), (), questions.tool_tokens)


@spent_on(Part.BUILDS)
def prove(
    choices: Mapping[str, Choice],
    contracts: Mapping[str, Contract],
    instances: Mapping[str, Sequence[Instance]],
    backend: Backend,
    cache: Path,
) -> Proof | Failure:
    """Builds each op's kernel for the model's constants, plain and watermarked, side by side.

    UsageError as `Backend.build`; a compiler's refusal is data, and so is a kernel for which the model has no use.
    """
    supported = {op: supported_by(choice, contracts[op], instances[op]) for op, choice in choices.items()}
    unused = [op for op, found in supported.items() if not found]
    if unused:
        return Failure(Status.WRONG, f"{NOT_RUN}: it supports none of this model's layers")

    def built(op: str, watermark: bool) -> list[Entry]:
        return backend.build(choices[op], contracts[op], supported[op], cache, watermark)

    wanted = [(op, watermark) for op in choices for watermark in (False, True)]
    try:
        with ThreadPoolExecutor(2) as pool:
            entries = list(pool.map(lambda one: built(*one), wanted))
    except BuildError as error:
        return Failure(Status.FAILED_BUILD, first_error(str(error)))
    files = [code_file(of_build[0]) for of_build in entries]
    hashes = [code_hash(Path(file)) for file in files]
    code = {op: (hashes[2 * i], hashes[2 * i + 1]) for i, op in enumerate(choices)}
    return Proof(code, tuple(files), tuple(e["compiled"] for of_build in entries for e in of_build if "compiled" in e))


@spent_on(Part.COMPARING)
def judge(proof: Proof, loaded: Any, folder: Path, tolerance: Tolerance) -> Dispatched:
    """What the engine's process left behind. `loaded`: for each op the hashes of what it loaded, as in `proof`; what it
    says may be anything."""
    said = {op: _hashes(loaded, op) for op in proof.code}
    code = {op: hashes[0] for op, hashes in said.items() if hashes}
    for op, hashes in proof.code.items():
        if hashes != said[op]:
            return Dispatched(code, {}, Failure(Status.WRONG, f"{NOT_RUN}: {op} was loaded from other code"))
    try:
        changes = {op: _change(folder, op) for op in proof.code}
    except (ValueError, IndexError) as error:
        return Dispatched(code, {}, Failure(Status.CRASHED, f"left no answers: {error}"))
    for op, change in changes.items():
        if change <= FAR * tolerance.kl:
            reason = f"{NOT_RUN}: with other results of {op} its logits change by a KL of {change:.1e}"
            return Dispatched(code, changes, Failure(Status.WRONG, reason))
    return Dispatched(code, changes)


def _hashes(loaded: Any, op: str) -> tuple[str, ...]:
    """Those that a process says it loaded for an op; none where it says something else."""
    hashes = loaded.get(op) if isinstance(loaded, dict) else None
    if not isinstance(hashes, list) or not all(isinstance(one, str) for one in hashes):
        return ()
    return tuple(hashes)


def _change(folder: Path, op: str) -> float:
    """KL(plain || watermarked) in nats; infinite where the watermark makes NaNs. ValueError or IndexError where a file
    holds something else than answers to the question."""
    plain, marked = (Answers.load(answers_file(folder, name)).logits[0] for name in ("", op))
    if plain.shape != marked.shape:
        raise ValueError(f"logits of {op}: {marked.shape}, without the watermark {plain.shape}")
    change = float(kl_divergence(plain, marked).max())
    return math.inf if math.isnan(change) else change

"""The child's `engine` job: a candidate in the whole engine, first what it answers, then how fast it decodes."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from baseline.engine import Engine, IoPolicy
from baseline.questions import Questions, answer
from baseline.variant import Choice, parse_variant
from harness.child import begin


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the questions to the candidate, then decodes with both arms in ABBA order.

    The answers go to the file `answers`, for the parent to compare; back come the tokens/s of each decode by arm, and
    the hashes of what the ops to be shown to run were loaded from. The golden answers never come here.
    """
    engine = Engine.load(Path(job["packed"]))
    champion, candidate = job["arms"]
    Path(job["started"]).touch()  # a candidate's I/O policy may fail
    for name in (candidate, champion):
        warm_up(engine, job, job["arms"][name]["io"], job["prompt"])
    begin(job, max(choice.threads for name in job["arms"] for choice in choices(job["arms"][name]["choices"]).values()))
    configure(engine, job, candidate)
    put(engine, job["questions"], job["answers"])
    code = show_dispatch(engine, job, candidate)
    speeds: dict[str, list[float]] = {champion: [], candidate: []}
    for name in (candidate, champion):  # warm-up: builds, page cache, MLX's own compilation
        configure(engine, job, name)
        engine.decode(job["prompt"], 4)
    for name in (champion, candidate, candidate, champion) * job["blocks"]:
        configure(engine, job, name)
        speeds[name].append(decode_speed(engine, job["prompt"], job["tokens"]))
    return {"tokens_per_s": speeds, "code": code}


def show_dispatch(engine: Engine, job: Mapping[str, Any], arm: str) -> dict[str, list[str]]:
    """Puts one question to the arm as it is configured now, and again with each of the job's `watermarked` ops.

    The answers go to the files that the job names; back come the hashes of each op's two builds.
    """
    if job["watermarked"]:
        put(engine, job["question"], job["plain"])
    code = {}
    own = {op: engine.kernels[op].code for op in job["watermarked"]}
    for op, file in job["watermarked"].items():
        configure(engine, job, arm, watermarked=(op,))
        put(engine, job["question"], file)
        code[op] = [own[op], engine.kernels[op].code]
    return code


def put(engine: Engine, questions: str, file: str) -> None:
    """Writes the engine's answers to `questions` (JSON)."""
    answer(engine.model, engine.tokenizer, Questions.from_json(questions)).save(Path(file))


def warm_up(engine: Engine, job: Mapping[str, Any], io: Mapping[str, Any], prompt: Sequence[int]) -> None:
    """Runs the trusted kernels with an arm's I/O policy, so that MLX compiles its graphs and all threads start.

    None of that can be done once the calls are restricted.
    """
    folders: dict[str, Any] = {"kernels": Path(job["kernels"]), "cache": Path(job["cache"])}
    engine.configure(choices(job["trusted"]), IoPolicy(**io), **folders)
    engine.logits([*prompt, *prompt])
    engine.decode(prompt, 4)


def choices(written: Mapping[str, Any]) -> dict[str, Choice]:
    """Variants and tunables by op as a job holds them; tunables null are the first of each."""
    read = {op: (parse_variant(Path(c["path"])), c["tunables"]) for op, c in written.items()}
    return {op: Choice.defaults(v) if tunables is None else Choice(v, tunables) for op, (v, tunables) in read.items()}


def configure(engine: Engine, job: Mapping[str, Any], name: str, watermarked: Collection[str] = ()) -> None:
    """Gives the engine the kernels and the I/O policy of an arm."""
    arm = job["arms"][name]
    folders: dict[str, Any] = {"kernels": Path(job["kernels"]), "cache": Path(job["cache"])}
    engine.configure(choices(arm["choices"]), IoPolicy(**arm["io"]), **folders, watermarked=watermarked)


def decode_speed(engine: Engine, prompt: list[int], tokens: int) -> float:
    """Tokens/s of a greedy decode, the prefill and the first token left out."""
    return (tokens - 1) / sum(engine.decode(prompt, tokens).token_s)

"""The child's `engine` job: configurations of the whole engine, what they answer and how fast they decode."""

import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from baseline.engine import Engine, IoPolicy
from baseline.questions import Questions, answer
from baseline.variant import Choice, parse_variant
from harness.child import begin, let_in
from harness.listening import channel, listen


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answers commands: see the methods of `Arms`. The golden answers never come here."""
    answers = channel()
    engine = Engine.load(Path(job["packed"]))
    if "questions" in job:
        _ = engine.tokenizer  # loaded while files may be opened
    let_in(job)  # a candidate's I/O policy may fail
    for io in distinct(arm["io"] for arm in job["arms"].values()):
        warm_up(engine, job, io, job["prompt"])
    begin(job, max(threads(arm) for arm in job["arms"].values()))
    return listen(answers, Arms(engine, job), job["timeout_s"])


def distinct(policies: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The I/O policies, each once: to be warmed up takes half a second."""
    return [*{tuple(sorted(policy.items())): policy for policy in policies}.values()]


def threads(arm: Mapping[str, Any]) -> int:
    """The most that a kernel of an arm runs on; those for a GPU run on none of ours."""
    own = (choice for choice in choices(arm["choices"]).values() if choice.variant.target == "cpu")
    return max((choice.threads for choice in own), default=1)


class Arms:
    """Configurations of one engine."""

    def __init__(self, engine: Engine, job: Mapping[str, Any]) -> None:
        self._engine, self._job = engine, job
        self._steps: Generator[Any, int | None, None] | None = None

    def answer(self, arm: str) -> dict[str, Any]:
        """Puts the job's questions to an arm, and one question again with each of its `watermarked` ops.

        The answers go to the files that the job names; back come the hashes of each op's two builds.
        """
        configure(self._engine, self._job, arm)
        put(self._engine, self._job["questions"], self._job["answers"])
        return {"code": show_dispatch(self._engine, self._job, arm)}

    def start(self, arm: str, prompt: Sequence[int]) -> dict[str, Any]:
        """Makes ready to decode with an arm: the prompt is read."""
        configure(self._engine, self._job, arm)
        self._steps = self._engine.steps(prompt)
        next(self._steps)
        return {}

    def decode(self, first: int, tokens: int) -> dict[str, Any]:
        """Decodes so many tokens greedily, after `first`: [token, its logit] of each. `read_bytes`: those of experts.

        This process's own clock is only compared with the parent's.
        """
        assert self._steps is not None, "decodes what was started"
        before, started = self._engine.usage().read_bytes, time.perf_counter()
        rows = [self._steps.send(first if step == 0 else None) for step in range(tokens)]
        said = [[int(row.argmax()), float(row.max())] for row in rows]
        seconds = time.perf_counter() - started
        return {"said": said, "seconds": seconds, "read_bytes": self._engine.usage().read_bytes - before}

    def rest(self) -> dict[str, Any]:
        """Lets go of what only the last decode needs: another process may be next, and what is mapped stays cached."""
        self._steps = None
        self._engine.configure()
        return {}

    def score(self, arm: str, read: Sequence[int], said: Sequence[int]) -> dict[str, Any]:
        """[the highest logit, that of the token] of each token that was `said` after what was `read`."""
        configure(self._engine, self._job, arm)
        rows = self._engine.logits([*read, *said[:-1]])[len(read) - 1 :]
        return {"logits": [[float(row.max()), float(row[token])] for row, token in zip(rows, said, strict=True)]}


def show_dispatch(engine: Engine, job: Mapping[str, Any], arm: str) -> dict[str, list[str]]:
    """See `Arms.answer`."""
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
    engine.logits(prompt[:1])  # as the question that shows dispatch: MLX's graph of a first token is another one
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

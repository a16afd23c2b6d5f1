"""What an engine's process leaves may be anything: it becomes a failure with a reason, and nothing is raised."""

import json
import math
import os
import struct
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baseline.golden import Fingerprint, Golden, Tools
from baseline.questions import Answers, Prompt, Questions
from baseline.tolerance import Tolerance
from harness import decodes, dispatch, measure
from harness.candidate import Status
from harness.dispatch import Proof
from harness.measure import UNTIMED, EngineArm, EnginePlan, EngineSetting, run_engine

PROOF = Proof({"qmatvec": ("0123", "4567")})
SAID = {"code": {"qmatvec": ["0123", "4567"]}}
RIGHT = Answers((np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8),), (np.ones(3, np.float32),), ("a",))
CALL = {"name": "f", "arguments": {}}
GOLDEN = Golden(
    Fingerprint("", "float32", "", ""),
    Questions((Prompt((1, 2), (1,), (3,)),), ((1, 2, 3, 4),), ((5,),), 4),
    Tools("qwen3_coder", (CALL,)),
    RIGHT,
)
SHORT = EnginePlan(blocks=(1, 1), tokens=2)
DECODED = {"said": [[3, 7.0], [5, 7.0]], "seconds": 1.0, "read_bytes": 8}
TIMES = 60
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["qmatvec", "x"]), inner, max_size=2),
    max_leaves=6,
)


def safetensors(header, data=b""):
    """The bytes of a safetensors file, whatever its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def array(shape, offsets=(0, 32), dtype="F32", name="logits.0", texts='["a"]'):
    header = {"__metadata__": {"tool_answers": texts}, name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    return safetensors(header, bytes(32))


def written(answers, folder):
    answers.save(folder / "made")
    return (folder / "made").read_bytes()


class Forged:
    """An engine's child that is none: it says and leaves what a test wants."""

    def __init__(self, said, answers, plain, decoded, scored, job):
        self.said, self.decoded, self.scored, self.pid = said, decoded, scored, os.getpid()
        asked = {"answers": None, "plain": None, "watermarked": {}} | job  # nothing of a process that scores
        self.files = {asked["answers"]: answers, asked["plain"]: plain}
        self.files |= dict.fromkeys(asked["watermarked"].values(), plain)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ready(self):
        pass

    def fetch(self):
        for path, content in self.files.items():
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)

    def ask(self, what, **arguments):
        scored = {"logits": [[self.scored, self.scored]] * SHORT.tokens}
        return {"answer": self.said, "start": {}, "rest": {}, "decode": self.decoded, "score": scored}[what]

    def clocked(self, what, **arguments):
        return self.ask(what, **arguments), 1.0


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Runs an engine's stage on what a process says, and on the content of the files that it leaves."""
    monkeypatch.setattr(measure.prepare, "files", lambda setting, arms: {"libraries": [], "compiled": []})
    monkeypatch.setattr(measure, "expert_files", lambda packed: [])
    monkeypatch.setattr(measure, "fit_twice", lambda packed: True)
    monkeypatch.setattr(decodes, "disk_bytes", lambda pid: 0)
    setting = EngineSetting(tmp_path, tmp_path, tmp_path, "cpu", Tolerance())
    marked = written(Answers((-100 * RIGHT.logits[0],), (), ()), tmp_path)
    right = written(RIGHT, tmp_path)

    def run(said=SAID, answers=right, plain=marked, decoded=None, scored=(7.0,), proof=PROOF, plan=UNTIMED):
        """scored: the logit of each token by the champion, of one stage after the other."""
        logits = chain.from_iterable(repeat(logit, 2) for logit in [*scored, math.nan])  # two processes a stage

        def process(job, *_, **__):
            return Forged(said, answers, plain, decoded, next(logits), job)

        monkeypatch.setattr(decodes, "Conversation", process)
        arm = EngineArm({}, {})
        return run_engine(arm, arm, GOLDEN, setting, tmp_path, 1.0, plan, proof)

    run.right = right
    return run


def test_right_answers_are_right(engine):
    result = engine(proof=Proof({}), decoded=DECODED, plan=SHORT)
    assert result.right and result.failure is None and result.cache_use.candidate.read_bytes == 4


@pytest.mark.parametrize(("scored", "right"), [((7.1, 7.0), True), ((7.1, 7.1, 7.0), False), ((7.0, 7.1), True)])
def test_a_decode_that_took_another_expert_at_a_tie_is_made_again_once(scored, right, engine):
    result = engine(proof=Proof({}), decoded=DECODED, scored=scored, plan=SHORT)
    assert result.right is right
    assert right or result.failure.reason == "in a timed decode: token 1 has the logit 7.1, not 7"


@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=JSON)
def test_whatever_it_says_of_its_code_is_other_code(said, engine):
    failure = engine({"code": said}).failure
    assert failure.status is Status.WRONG and failure.reason.endswith("qmatvec was loaded from other code")


NO_ANSWERS = {
    "nothing": None,
    "an empty file": b"",
    "bytes": bytes(range(256)),
    "a header of 8 EB": struct.pack("<Q", 2**63) + b"{}",
    "a list": safetensors([1, 2]),
    "a number": safetensors(b"3"),
    "a deep header": safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no metadata": safetensors({}),
    "no texts": safetensors({"__metadata__": {}}),
    "a number of texts": array([1, 8], texts="5"),
    "numbers as texts": array([1, 8], texts="[5]"),
    "deep texts": array([1, 8], texts="[" * 100_000),
    "5000 dimensions": array([1] * 5000 + [8]),
    "more than there is": array([100_000, 100_000], [0, 40_000_000_000]),
    "a size that overflows": array([2**62, 2**62]),
    "a size that is no size": array("x"),
    "a size that is no number": array([1, 10**400]),
    "half of an element": array([1, 8], [0, 31]),
    "no float32": array([1, 8], dtype="I32"),
    "another name": array([1, 8], name="logits.x"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_a_file_that_holds_no_answers(name, engine):
    result = engine(answers=NO_ANSWERS[name], proof=Proof({}))
    assert result.failure.status is Status.CRASHED and not result.right
    assert result.failure.reason.startswith("left no answers: ")
    shown = engine(plain=NO_ANSWERS[name])
    assert shown.failure.status is Status.CRASHED and shown.dispatched.failure == shown.failure


def changed(logits=RIGHT.logits, nll=RIGHT.nll, texts=RIGHT.tool_answers):
    return Answers(logits, nll, texts)


DEEP = "<tool_call>\n<function=f>\n<parameter=a>\n" + "[" * 10_000 + "\n</parameter>\n</function>\n</tool_call>"
WRONG = {
    "a NaN": (changed((np.where(RIGHT.logits[0] > 0.9, np.nan, RIGHT.logits[0]),)), "holds NaN or infinity"),
    "another shape": (changed((RIGHT.logits[0].T,)), "expected shapes"),
    "no logits": (changed(()), "expected shapes"),
    "a window too many": (changed(nll=RIGHT.nll * 2), "expected shapes"),
    "no text": (changed(texts=()), "expected 1 tool answers, got 0"),
    "a perplexity that is no float": (changed(nll=(np.full(3, 1e30, np.float32),)), "perplexity: expected"),
    "the largest floats": (changed((np.array([[3e38, -3e38] * 4], np.float32),)), "KL"),
}


@pytest.mark.parametrize("name", WRONG)
def test_answers_that_are_wrong(name, engine, tmp_path):
    answers, reason = WRONG[name]
    result = engine(answers=written(answers, tmp_path), proof=Proof({}))
    assert result.failure.status is Status.WRONG and reason in result.failure.reason


def test_a_tool_call_that_is_nested_without_end_is_none(engine, tmp_path):
    """The golden answer is no call either, so that it is not worse."""
    assert engine(answers=written(changed(texts=(DEEP,)), tmp_path), proof=Proof({})).right


def test_what_shows_dispatch_must_have_one_shape(engine, tmp_path, monkeypatch):
    shapes = iter([(1, 8), (1, 1)])

    def load(path):
        return Answers((np.zeros(next(shapes), np.float32),), (), ())

    monkeypatch.setattr(dispatch.Answers, "load", load)
    assert engine().failure.reason.startswith("left no answers: logits of qmatvec: ")


@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_raises_nothing(data, engine):
    content = bytearray(engine.right)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    failure = engine(answers=bytes(content), proof=Proof({})).failure
    assert failure is None or failure.status in (Status.CRASHED, Status.WRONG)


@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=JSON)
def test_whatever_it_says_it_has_read_is_a_number(said, engine):
    result = engine(decoded=DECODED | {"read_bytes": said}, proof=Proof({}), plan=SHORT)
    assert result.right and np.isfinite(result.cache_use.candidate.read_bytes)


@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=JSON | st.lists(st.tuples(st.integers(-1, 8) | st.booleans(), st.just(7.0) | st.just(7)), max_size=3))
def test_whatever_it_says_it_has_decoded_is_two_of_eight_tokens_or_none(said, engine):
    result = engine(decoded=json.loads(json.dumps(DECODED | {"said": said})), proof=Proof({}), plan=SHORT)
    right = isinstance(said, list) and said in [[(a, 7.0), (b, 7.0)] for a in range(8) for b in range(8)]
    right = right and [type(part) for one in said for part in one] == [int, float] * 2
    assert result.right is right
    assert right or "no text of as many tokens as were asked for" in result.failure.reason


@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=JSON)
def test_whatever_it_says_of_its_clock_is_no_error(said, engine):
    failure = engine(decoded=DECODED | {"seconds": said}, proof=Proof({}), plan=SHORT).failure
    assert failure is None  # it says the same of both arms

"""A child that answers what it likes: the parent takes it as an end with a reason, and never waits for ever."""

import json
import os
import sys

import pytest

from harness import conversation
from harness.conversation import UNASKED, Conversation, Ended
from harness.sandbox import Child, ChildStatus

READY = "say(b'{\"number\": 0}\\n')\n"
HEARD = "sys.stdin.readline()\n"
PRELUDE = "import os, sys, time\ndef say(line):\n    os.write(1, line)\n"


@pytest.fixture
def talk(tmp_path, monkeypatch):
    """A conversation with a script."""
    made = []

    def begin(script, timeout_s=20.0):
        def start_child(job, folder, timeout_s, talk, descriptors=()):
            (folder / "engine.job.json").write_text(json.dumps({"limits": {"cpu_s": 1, "memory_bytes": 1}}))
            (folder / "engine.log").touch()
            told, begun = os.pipe()
            os.write(begun, b"1")
            os.close(begun)
            pipes = dict.fromkeys(("stdin", "stdout"), -1)
            return Child([sys.executable, "-c", PRELUDE + script], told, start_new_session=True, **pipes)

        monkeypatch.setattr(conversation, "start_child", start_child)
        made.append(Conversation({"kind": "engine"}, ("candidate",), tmp_path, timeout_s))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "answer",
    ["nonsense", "[1]", "null", "{}", '{"number": 2}', '{"number": NaN}', "[" * 100_000, "9" * 10_000],
    ids=["nonsense", "list", "null", "nothing", "number", "nan", "deep", "digits"],
)
def test_an_answer_that_is_none(answer, talk):
    child = talk(f"{READY}{HEARD}say({answer.encode()!r} + b'\\n')\ntime.sleep(60)")
    child.ready()
    with pytest.raises(Ended) as ended:
        child.ask("answer")
    assert ended.value.result.reason == UNASKED


def test_an_answer_without_an_end(talk):
    child = talk(f"{READY}{HEARD}while True: say(b' ' * 65536)")
    child.ready()
    with pytest.raises(Ended) as ended:
        child.ask("answer")
    assert ended.value.result.reason == UNASKED


def test_a_child_that_answers_and_does_not_listen(talk):
    """Its pipe is full after some thousand commands, which the parent finds before it waits for ever."""
    answers = "for n in range(1, 10000): say(b'{\"number\": %d}\\n' % n)\n"
    child = talk(f"{READY}{answers}time.sleep(60)", timeout_s=1.0)
    child.ready()
    with pytest.raises(Ended) as ended:
        for _ in range(10000):
            child.ask("answer")
    assert ended.value.result.status is ChildStatus.TIMEOUT

"""Files in a folder become candidates, once each by content, and are answered beside them."""

import json
import shutil
import threading
import time
from dataclasses import replace

import pytest

from harness.answer import line_of
from harness.candidate import Status
from harness.loop import seed_candidate
from harness.propose import inbox as inboxes
from harness.propose.base import History
from harness.propose.inbox import Inbox, answer_file
from harness.settings import DEFAULT_IO
from harness.shelf import Shelf
from harness.targets import Cuda, Target
from tests.harness.propose.worlds import KERNELS, OPS, World, drop, outcome, text, world

GOOD = text("qmatvec", "mine", {"ROWS": [4, 2]}, "y[0] = 1;")


@pytest.fixture
def here(tmp_path) -> World:
    return world(tmp_path / "here")


def open_inbox(here: World, patience_s: float = 0.0) -> Inbox:
    return Inbox(here.folder / "inbox", here.shelf, OPS, patience_s)


def ask(proposer: Inbox, here: World, rows=(), pending=()):
    return proposer.propose(History(here.seed, here.seed, rows, pending))


def answer(path):
    return json.loads(answer_file(path).read_text())


def test_a_file_is_proposed_with_its_defaults_and_answered_with_its_figures(here):
    proposer = open_inbox(here)
    path = drop(here.folder / "inbox", "mine.cpp", GOOD)
    candidate = ask(proposer, here)
    assert candidate.configuration.kernels["qmatvec"].written() == ("mine", '{"ROWS": 4}')
    assert candidate.hypothesis == "mine is faster" and not answer_file(path).exists()
    proposer.observe(candidate, outcome(candidate, Status.KEPT, 2.0))
    told = answer(path)
    assert (told["status"], told["passed"], told["faster"], told["reason"]) == ("kept", True, True, "")
    assert told["speedup"] == {"value": 2.0, "low": 1.98, "high": 2.02}


def test_a_failure_is_answered_with_the_line(here):
    proposer = open_inbox(here)
    path = drop(here.folder / "inbox", "mine.cpp", GOOD)
    candidate = ask(proposer, here)
    failed = outcome(candidate, Status.FAILED_BUILD, float("nan"))
    proposer.observe(candidate, replace(failed, reason="mine.cpp:8:1: error: no such name"))
    told = answer(path)
    assert (told["status"], told["passed"], told["line"], told["speedup"]) == ("failed_build", False, 8, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("y[0] = 1;", "must start with a header"),
        ("/*---\nop: [\n---*/\n;", "cannot be read"),
        (GOOD.replace("op: qmatvec", "op: gated_delta_step"), "this search changes expert_down, qmatvec"),
        (GOOD.replace("op: qmatvec", "op: [qmatvec]"), "op is ['qmatvec']"),
        (GOOD.replace("target: cpu", "target: metal"), "this search is for cpu"),
        (GOOD.replace('"ROWS"', '"rows"'), "variant qmatvec/cpu/mine.cpp: tunable rows must have a capital name"),
        (GOOD.replace("y[0] = 1;", ";"), "same as plain"),
        (text("qmatvec", "plain", {"THREADS": [2, 1]}, ";"), "that the search started from"),
        ("\0" * 30, "must start with a header"),
    ],
)
def test_a_file_that_cannot_be_tried_is_answered_with_the_reason(here, content, reason):
    before = {path.name for path in here.shelf.kernels.rglob("*")}
    path = drop(here.folder / "inbox", "mine.cpp", content)
    assert ask(open_inbox(here), here) is None
    told = answer(path)
    assert reason in told["reason"] and (told["status"], told["passed"]) == ("unsound", False)
    assert {path.name for path in here.shelf.kernels.rglob("*")} == before


def test_an_error_in_the_header_is_answered_with_its_line_in_the_file(here):
    path = drop(here.folder / "inbox", "mine.cpp", "/*---\nop: qmatvec\ntarget: [cpu\n---*/\n;")
    ask(open_inbox(here), here)
    assert answer(path)["line"] in (3, 4)  # YAML notices it where the list does not end


def test_a_refuted_idea_needs_a_changed_condition(here, monkeypatch):
    monkeypatch.setattr(
        "harness.propose.admission.turned_down", lambda idea, op, target, rows: f"repeats {op} {target}"
    )
    path = drop(here.folder / "inbox", "mine.cpp", GOOD)
    assert ask(open_inbox(here), here) is None
    assert answer(path)["reason"] == "repeats qmatvec cpu"


def test_an_answered_file_is_left_alone_until_it_changes(here):
    proposer, rows = open_inbox(here), []
    path = drop(here.folder / "inbox", "mine.cpp", GOOD)
    candidate = ask(proposer, here)
    rows.append(outcome(candidate, Status.WRONG))
    proposer.observe(candidate, rows[-1])
    assert ask(proposer, here, rows) is None
    assert ask(open_inbox(here), here, rows) is None  # nor after a kill
    drop(here.folder / "inbox", "mine.cpp", GOOD.replace("= 1", "= 2"))  # the twin of one that failed may be its repair
    repaired = ask(proposer, here, rows)
    assert repaired is not None and repaired.configuration.kernels["qmatvec"].variant == "mine_2"
    proposer.observe(repaired, outcome(repaired))
    assert answer(path)["candidate"] == repaired.id


def test_the_twin_of_one_that_was_measured_is_refused(here):
    proposer, rows = open_inbox(here), []
    drop(here.folder / "inbox", "mine.cpp", GOOD)
    candidate = ask(proposer, here)
    rows.append(outcome(candidate))
    proposer.observe(candidate, rows[-1])
    path = drop(here.folder / "inbox", "other.cpp", GOOD.replace("= 1", "= 2"))
    assert ask(proposer, here, rows) is None
    assert answer(path)["reason"] == "same as mine but for 1 -> 2: make it a tunable"


def test_a_second_file_with_the_same_content_gets_the_same_answer(here):
    proposer, rows = open_inbox(here), []
    first, second = (drop(here.folder / "inbox", f"{name}.cpp", GOOD) for name in ("a", "b"))
    candidate = ask(proposer, here)
    assert ask(proposer, here, rows, (candidate,)) is None
    rows.append(outcome(candidate))
    proposer.observe(candidate, rows[-1])
    assert ask(proposer, here, rows) is None
    assert answer(first) == answer(second)


def test_what_was_judged_before_a_kill_is_answered_from_the_ledger(here):
    path = drop(here.folder / "inbox", "mine.cpp", GOOD)
    candidate = ask(open_inbox(here), here)
    assert ask(open_inbox(here), here, [outcome(candidate)]) is None
    assert answer(path)["candidate"] == candidate.id


def test_a_file_that_is_still_written_is_left_for_later(here):
    path = here.folder / "inbox" / "mine.cpp"
    proposer = open_inbox(here)
    path.write_text(GOOD[:40])  # just now
    assert ask(proposer, here) is None
    assert not answer_file(path).exists()


def test_it_waits_for_a_file_but_not_while_a_candidate_waits(here, monkeypatch):
    monkeypatch.setattr(inboxes, "POLL_S", 0.01)
    proposer = open_inbox(here, patience_s=60.0)
    began = time.monotonic()
    assert ask(proposer, here, (), (here.seed,)) is None  # at once, or the search would stand still
    later = threading.Timer(0.1, drop, (here.folder / "inbox", "mine.cpp", GOOD))
    later.start()
    assert ask(proposer, here) is not None
    later.join()
    assert time.monotonic() - began < 30


def test_ctrl_c_ends_the_wait(here, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(inboxes.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(open_inbox(here, patience_s=60.0), here)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("mine.cpp:12:5: error: expected ';'", 12),
        ("metal_kernel half: half.metal:7: race: byte 128 of `tile`", 7),
        ("y is 3.0 off in case 2", None),
        ('while parsing, in "<unicode string>", line 3, column 1', 4),
    ],
)
def test_the_line_of_a_reason(reason, line):
    assert line_of(reason) == line


@pytest.mark.parametrize(
    ("file", "target", "found"),
    [
        ("mine.cu", "cuda", "mine"),
        ("mine.metal", "metal", "metal_mine"),
        ("mine.cu", "metal", None),
        ("mine.metal", "cuda", None),
    ],
)
def test_cuda_takes_metals_files_too(tmp_path, file, target, found):
    kernels = KERNELS / "qmatvec"
    (tmp_path / "kernels" / "qmatvec").mkdir(parents=True)
    shutil.copy(kernels / "contract.yaml", tmp_path / "kernels" / "qmatvec")
    shelf = Shelf({"qmatvec": {}}, Target("cuda", (Cuda(),), measures=True), tmp_path / "kernels")
    shelf.add("qmatvec", "plain", (kernels / "cuda" / "plain.cu").read_text())
    seed = seed_candidate(shelf, DEFAULT_IO)
    text = (kernels / ("cuda/warp.cu" if target == "cuda" else "metal/rows.metal")).read_text()
    path = drop(tmp_path / "inbox", file, text)
    candidate = Inbox(tmp_path / "inbox", shelf, ("qmatvec",), 0.0).propose(History(seed, seed, ()))
    assert (candidate and candidate.configuration.kernels["qmatvec"].variant) == found
    assert answer_file(path).exists() == (found is None)
    assert found is not None or "whose files end with" in answer(path)["reason"]

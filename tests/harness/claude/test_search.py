"""A whole search with a model that is scripted: real children, a real judge, the real SDK."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from harness import targets
from harness.candidate import Status
from harness.ledger import encode, load_rows
from harness.loop import search
from harness.propose.claude.event import Kind
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.settings import ProposerSettings
from harness.run_folder import RunFolder
from harness.sandbox import environment
from harness.settings import SearchSettings
from harness.targets import Emulated, Target
from tests.harness import metal_variants
from tests.harness.claude.messages_server import failed, raw, streamed, tool
from tests.harness.claude.place import KERNEL, USD, last_results
from tests.harness.variants import BAD, FAST

SUPPORTS = [{"name": "BITS", "values": [2, 4, 8]}]
# A search in another process; its argument holds the fields of SearchSettings.
SCRIPT = """
import json, sys
from pathlib import Path
from harness.loop import search
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.settings import ProposerSettings
from harness.settings import SearchSettings
from tests.harness.short_runs import shorten
shorten(setattr)
given = json.loads(sys.argv[1])
model = ClaudeSettings(**given.pop("proposer")["claude"])
paths = {name: Path(given.pop(name)) for name in ("run", "packed", "kernels", "cache", "golden")}
search(SearchSettings(**paths, **given, proposer=ProposerSettings("claude", model)))
"""
MAX_TOKENS = 1000
WORST = (5 * 1050 + 20 * MAX_TOKENS) / 1e6  # of one call: 1000 tokens counted, 5 % of margin


def proposed(name, body, **changes):
    kernel = KERNEL | {"name": name, "helpers": "", "body": body, "tunables": [], "supports": SUPPORTS} | changes
    return streamed(tool("propose_kernel", kernel))


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels, short, server):
    def make(**changes):
        capped = {"max_usd": 10.0, "max_tokens": MAX_TOKENS}
        model = ClaudeSettings("claude-opus-5-5", base_url=server.url, patience_s=20.0, **capped)
        common = {"ops": ("qmatvec",), "proposer": ProposerSettings("claude", model), "timeout_s": 20.0}
        return SearchSettings(tmp_path / "run", packed, kernels, cache, golden, **common | changes)

    return make


def test_from_a_wrong_first_try_through_a_compile_error_to_a_confirmed_win(settings, server):
    bodies = BAD["skips_the_biases"], BAD["does_not_compile"], BAD["leaves_an_element"], FAST
    given, judged = settings(candidates=4), []

    def slowly(number, body):
        def reply(request):
            judged.append(len(load_rows(given.run / "ledger.tsv")))
            return server.slowly([*proposed(f"kernel_{number}", body)(request).response], every_s=0.02)(request)

        return reply

    server.will(*(slowly(number, body) for number, body in enumerate(bodies)))
    summary = search(given)
    rows = load_rows(given.run / "ledger.tsv")[1:]
    assert [row.status for row in rows] == [Status.WRONG, Status.FAILED_BUILD, Status.WRONG, Status.KEPT]
    assert {row.proposer for row in rows} == {"claude"} and summary.confirmed.ops["qmatvec"].low > 1
    gained = 100 * (summary.speedup - 1)
    assert summary.to_json()["usd_per_percent"] == pytest.approx(4 * USD / gained)
    # A model is asked when nothing is to be measured, and then knows what was found.
    assert judged == [1, 2, 3, 4]
    said = [json.dumps(last_results(asked)) for asked in server.asked]
    assert said[0] == "[]" and "off by" in said[1] and "no_such_name" in said[2] and "wrong at check" in said[3]


def proposed_metal(name, body):
    kernel = KERNEL | {"target": "metal", "name": name, "helpers": "", "body": body}
    kernel |= {"hypothesis": f"{name} instead", "tunables": [{"name": "WIDTH", "values": [4], "when": []}]}
    kernel |= {"supports": [{"name": "N", "values": [8]}, {"name": "BITS", "values": [4]}]}
    kernel |= {"launch": {"grid": ["N", "m", 1], "threadgroup": ["WIDTH", 1, 1]}}
    return streamed(tool("propose_kernel", kernel))


def test_from_a_wrong_kernel_through_a_compile_error_and_the_sanitizers_report_to_a_confirmed_win(
    settings, server, kernels, monkeypatch
):
    """In Metal's language, on a machine that measures what the emulator runs."""
    monkeypatch.setattr(targets, "here", lambda name: Target("metal", (Emulated(),), measures=True))
    metal_variants.write_contract(kernels)
    metal_variants.write_variant(kernels, "plain", metal_variants.SLOW)
    tries = [(name, metal_variants.BAD[name]) for name in ("skips_the_biases", "does_not_compile", "race")]
    server.will(*(proposed_metal(name, body) for name, body in [*tries, ("once", metal_variants.RIGHT)]))
    given = settings(target="metal", candidates=4)
    summary = search(given)
    rows = load_rows(given.run / "ledger.tsv")[1:]
    assert [row.status for row in rows] == [Status.WRONG, Status.FAILED_BUILD, Status.UNSAFE, Status.KEPT]
    assert {row.proposer for row in rows} == {"claude"} and summary.confirmed.ops["qmatvec"].low > 1
    wrong, broken, raced = (last_results(asked)[0]["content"] for asked in server.asked[1:])
    assert "off by" in wrong and "no_such_name" in broken
    # One conversation: the report has the variable, the threads, and the line that the model wrote.
    assert [len(asked["messages"]) for asked in server.asked] == [1, 3, 5, 7]
    line = metal_variants.line_of(given.run / "kernels" / "qmatvec" / "metal" / "race.metal", "last[0] = ")
    assert f"{line}: race: " in raced and "`last`" in raced and "unsafe at check" in raced


def ctrl_c(request):
    """What a person does while the model thinks."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return failed(500)(request)


def test_what_a_search_cost_is_in_its_ledger_and_its_events_up_to_ctrl_c(settings, server):
    server.will(proposed("first", FAST), failed(401), ctrl_c)
    given = settings(candidates=3)
    summary = search(given)
    assert summary.interrupted
    (row, *others), run = load_rows(given.run / "ledger.tsv")[1:], given.run
    assert (row.model, row.input_tokens, row.cached_tokens, row.output_tokens) == ("claude-opus-5-5", 1120, 1000, 50)
    assert row.usd == pytest.approx(USD) and [other.proposer for other in others] == ["mutate"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == [Kind.ERROR, Kind.UNUSED] and events[1]["usd"] > 0
    took = summary.language_model
    assert took.usd == pytest.approx(USD + events[1]["usd"]) and took.output_tokens == 50
    # A search that goes on counts what was spent before.
    again = RunFolder(settings(candidates=2, resume=True))
    assert again.model_use(load_rows(again.ledger)) == took


def test_kill_9_in_the_middle_of_an_answer_and_failed_ones_leave_every_count_right(settings, server):
    """A candidate; an answer that is none; a server that fails once; a question, and the answer that never ends."""
    question = streamed(tool("read_ledger", {"op": "", "status": "", "last": 1}))
    server.will(
        proposed("first", FAST), raw(b"<html>no</html>"), failed(500, retry_after="1"), question, server.stall()
    )
    given = settings(candidates=9, minutes=10.0)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(dataclasses.asdict(given), default=str)],
        env=environment() | {"ANTHROPIC_API_KEY": os.environ["ANTHROPIC_API_KEY"]},
    )
    while len(server.asked) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    run = given.run
    before = load_rows(run / "ledger.tsv")
    assert [row.proposer for row in before] == ["seed", "claude", "mutate"]

    server.will(proposed("second", BAD["does_not_compile"]))
    summary = search(settings(candidates=1, resume=True))
    rows = load_rows(run / "ledger.tsv")
    assert list(map(encode, rows[:3])) == list(map(encode, before))
    assert [row.proposer for row in rows[3:]] == ["claude"] and summary.evaluated == 3
    took = summary.language_model
    assert (took.calls, took.input_tokens, took.cached_tokens, took.output_tokens) == (6, 3 * 1120, 3 * 1000, 3 * 50)
    assert took.usd == pytest.approx(3 * USD + 2 * WORST)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == [Kind.CUT, Kind.UNUSED]
    assert [event["usd"] for event in events] == pytest.approx([WORST, USD + WORST])
    # Whoever resumes it again finds nothing that was forgotten, and nothing twice.
    again = RunFolder(settings(resume=True))
    again.account(rows)
    assert again.model_use(rows) == took

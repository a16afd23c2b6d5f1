"""A whole search with a model that is scripted: real children, a real judge, the real SDK."""

import json
import signal
import threading

import pytest

from harness.candidate import Status
from harness.ledger import load_rows
from harness.loop import search
from harness.propose.claude.event import Kind
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.settings import ProposerSettings
from harness.run_folder import RunFolder
from harness.settings import SearchSettings
from tests.harness.claude.messages_server import failed, streamed, tool
from tests.harness.claude.place import KERNEL, USD, last_results
from tests.harness.variants import BAD, FAST

SUPPORTS = [{"name": "BITS", "values": [2, 4, 8]}]


def proposed(name, body, **changes):
    kernel = KERNEL | {"name": name, "helpers": "", "body": body, "tunables": [], "supports": SUPPORTS} | changes
    return streamed(tool("propose_kernel", kernel))


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels, short, server):
    def make(**changes):
        model = ClaudeSettings("claude-opus-5-5", base_url=server.url, patience_s=20.0)
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

"""What goes wrong between us and the model: each is an event, and none ends a search."""

import pytest

from harness.candidate import Status
from harness.propose.claude import client
from harness.propose.claude.event import Kind
from harness.propose.claude.proposer import CALLS, FAILURES, REST
from tests.harness.claude.messages_server import cut_after, event, events, failed, message, raw, streamed, text, tool
from tests.harness.claude.place import KERNEL, USD, Fixed, last_results, numbered

PROPOSAL = streamed(tool("propose_kernel", KERNEL))
BEGUN = next(events(message()))


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited between two trials: nobody waits here."""
    waited = []
    monkeypatch.setattr(client, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("status", [429, 529, 500, 503])
def test_a_busy_server_is_asked_again_after_as_long_as_it_says(place, pauses, status):
    place.server.will(failed(status, retry_after="7"), failed(status, retry_after="2.5"), PROPOSAL)
    assert place.proposer().propose(place.history()).proposer == "claude"
    assert pauses == [7, 2.5] and place.events == [] and len(place.server.asked) == 3


def test_a_server_that_does_not_say_how_long_is_given_ever_more_time(place, pauses):
    place.server.will(*[failed(529)] * 4, PROPOSAL)
    assert place.proposer().propose(place.history()).proposer == "claude"
    assert pauses == [1, 2, 4, 8]


def test_a_server_that_says_not_to_wait_is_not_asked_for_ever(place, pauses):
    place.server.will(*[failed(429, retry_after="0")] * 99)
    assert place.proposer(patience_s=5).propose(place.history()).proposer == "fixed"
    assert pauses == [1] * 5


def test_pauses_together_are_no_longer_than_our_patience(place, pauses):
    place.server.will(*[failed(529)] * 9)
    assert place.proposer(patience_s=10).propose(place.history()).proposer == "fixed"
    assert pauses == [1, 2, 4] and place.kinds == [Kind.OVERLOAD]


@pytest.mark.parametrize(("status", "kind"), [(429, Kind.OVERLOAD), (529, Kind.OVERLOAD), (500, Kind.ERROR)])
def test_a_server_that_is_busy_for_longer_than_we_are_patient_is_given_up(place, status, kind):
    place.server.will(failed(status, retry_after="60"))
    assert place.proposer(patience_s=30).propose(place.history()).proposer == "fixed"
    assert place.kinds == [kind] and place.events[0].usd == 0
    assert len(place.server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_asking_again_does_not_heal_is_not_asked_again(place, status):
    place.server.will(failed(status))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.ERROR] and f"HTTP {status}" in place.events[0].reason
    assert len(place.server.asked) == 1


def test_a_server_that_is_not_there_is_an_event(place):
    proposer = place.proposer(base_url="http://127.0.0.1:9", patience_s=0.5)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.ERROR] and "no connection" in place.events[0].reason


@pytest.mark.parametrize(
    ("said", "every_s"),
    [((BEGUN,), 60.0), ((), 60.0), ((BEGUN, event("ping")), 0.1)],
    ids=["begun", "nothing", "pings alone"],
)
def test_silence_for_longer_than_we_are_patient_is_a_stall(place, said, every_s):
    place.server.will(place.server.stall(*said, every_s=every_s))
    assert place.proposer(patience_s=0.5).propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.STALL]


def test_a_slow_answer_is_no_stall(place):
    pieces = list(events(message(tool("propose_kernel", KERNEL))))
    place.server.will(place.server.slowly(pieces, every_s=0.1))
    assert place.proposer(patience_s=1.5).propose(place.history()).proposer == "claude"
    assert len(pieces) * 0.1 > 1.5


@pytest.mark.parametrize("pieces", [1, 3, 6])
def test_a_connection_cut_in_the_middle_is_an_event(place, pieces):
    place.server.will(cut_after(pieces, text("so"), tool("propose_kernel", KERNEL)))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.CUT] and sorted(place.shelf["qmatvec"]) == ["plain"]


def test_an_answer_that_ends_before_it_is_whole_is_an_event(place):
    begun = b"".join(list(events(message(tool("propose_kernel", KERNEL))))[:-1])
    place.server.will(raw(begun))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.CUT]


def test_an_error_in_the_middle_of_an_answer_is_an_event(place):
    place.server.will(raw(BEGUN + event("error", error={"type": "overloaded_error", "message": "too much"})))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.CUT] and "too much" in place.events[0].reason


@pytest.mark.parametrize(
    "body",
    [
        b"<html>it is not you, it is us</html>",
        b"event: message_start\ndata: {not json\n\n",
        b'event: message_start\ndata: {"type": "message_start"}\n\n',
        BEGUN + b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 7, "delta": {}}\n\n',
        BEGUN + b"event: content_block_start\ndata: []\n\n",
        BEGUN.replace(b"output_tokens", b"words") + event("message_stop"),
        b'{"type": "message"}',
        b"",
        b"\xff\xfe\x00event: \x00",
    ],
)
def test_a_body_that_is_no_answer_is_an_event(place, body):
    place.server.will(raw(body))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert set(place.kinds) <= {Kind.MALFORMED, Kind.CUT} and len(place.kinds) == 1


def test_tool_arguments_that_are_not_json_are_an_event(place):
    begun = [BEGUN, event("content_block_start", index=0, content_block=tool("propose_kernel", {}))]
    begun += [event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"op": qm'})]
    begun += [event("content_block_stop", index=0), event("message_stop")]
    place.server.will(raw(b"".join(begun)))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.MALFORMED]


def test_a_truncated_answer_is_an_event_and_what_it_cost_is_in_it(place):
    place.server.will(streamed(tool("propose_kernel", KERNEL), stop="max_tokens"))
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.TRUNCATED] and place.events[0].usd == pytest.approx(USD)
    assert place.events[0].usage.output == 50 and sorted(place.shelf["qmatvec"]) == ["plain"]


def test_a_refusal_is_an_event_and_its_conversation_is_over(place):
    proposer = place.proposer()
    place.server.will(streamed(text("No."), stop="refusal"), PROPOSAL)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert proposer.propose(place.history()).proposer == "claude"
    assert place.kinds == [Kind.REFUSAL] and len(place.server.asked[1]["messages"]) == 1


def test_a_model_that_never_comes_to_a_sound_proposal_is_given_up(place):
    place.server.will(*[streamed(tool("propose_kernel", KERNEL | {"op": "softmax"}))] * CALLS)
    assert place.proposer().propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.MALFORMED] * (CALLS + 1)
    assert sum(event.usd for event in place.events) == pytest.approx(CALLS * USD)


def test_after_repeated_failure_the_other_proposer_takes_over_and_the_model_is_tried_again_later(place):
    proposer = place.proposer()
    place.server.will(*[failed(400)] * FAILURES, PROPOSAL)
    proposed = [proposer.propose(place.history()).proposer for _ in range(FAILURES + REST)]
    assert proposed == ["fixed"] * (FAILURES + REST - 1) + ["claude"]
    assert len(place.server.asked) == FAILURES + 1


def test_one_failure_after_a_rest_is_enough_for_another(place):
    proposer = place.proposer()
    place.server.will(*[failed(400)] * (FAILURES + 1), PROPOSAL)
    for _ in range(FAILURES + REST - 1 + REST):
        assert proposer.propose(place.history()).proposer == "fixed"
    assert len(place.server.asked) == FAILURES + 1


@pytest.mark.parametrize("reply", [failed(529, retry_after="60"), cut_after(2, text("so"))])
def test_a_repair_is_asked_for_again_when_the_server_is_back(place, reply):
    proposer = place.proposer()
    place.server.will(PROPOSAL, reply, streamed(tool("propose_kernel", numbered(1), "toolu_2")))
    broken = proposer.propose(place.history())
    proposer.observe(broken, place.judged(broken, Status.FAILED_BUILD, "no such name"))
    assert [proposer.propose(place.history()).proposer for _ in range(2)] == ["fixed", "claude"]
    assert place.server.asked[1]["messages"] == place.server.asked[2]["messages"]
    assert "no such name" in last_results(place.server.asked[2])[0]["content"]


def test_a_search_ends_when_neither_has_anything(place):
    place.other = Fixed(place.seed, many=1)
    proposer = place.proposer()
    place.server.will(*[failed(400)] * FAILURES)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert proposer.propose(place.history()) is None


def test_each_proposer_hears_of_its_own_candidates(place):
    proposer = place.proposer()
    place.server.will(failed(400), PROPOSAL, failed(400))
    others, model, withdrawn = (proposer.propose(place.history()) for _ in range(3))
    proposer.observe(others, place.judged(others, Status.DISCARDED))
    proposer.observe(model, place.judged(model, Status.DISCARDED))
    proposer.withdraw(withdrawn)
    assert place.other.told == [others.id, f"withdrawn {withdrawn.id}"]
    assert proposer.spent(model) is not None and proposer.spent(others) is None

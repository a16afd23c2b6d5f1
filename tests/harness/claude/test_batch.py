"""Asking in batches: the same proposals at half the price, another proposer's while a batch is out."""

import signal
import threading

import pytest

from harness.candidate import Status
from harness.costs import Meter, Part
from harness.propose.claude import batched
from harness.propose.claude.batched import SIZE
from harness.propose.claude.event import Kind
from tests.harness.claude.messages_server import failed, message, text, tool
from tests.harness.claude.place import KERNEL, USD, Fixed, last_results, numbered

ERRORED = {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "no"}}}


def succeeded(*blocks, **options):
    """The result of a call that was answered."""
    return {"type": "succeeded", "message": message(*blocks, **options)}


def kernel(number):
    """The result of a call that proposes a kernel of its own."""
    return succeeded(tool("propose_kernel", numbered(number), f"toolu_{number}"))


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited for a batch: nobody waits here."""
    waited = []
    monkeypatch.setattr(batched, "sleep", waited.append)
    return waited


@pytest.fixture
def ends_while_we_wait(place, monkeypatch):
    """Batches are out until somebody waits for them."""
    place.server.status = "in_progress"
    monkeypatch.setattr(batched, "sleep", lambda _: setattr(place.server, "status", "ended"))


def proposers(proposer, place, many):
    """Who makes the next candidates."""
    return [proposer.propose(place.history()).proposer for _ in range(many)]


def test_a_batch_is_sent_and_its_proposals_come_one_after_the_other(place):
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    assert proposers(proposer, place, 1 + SIZE) == ["fixed"] + ["claude"] * SIZE
    assert sorted(place.shelf["qmatvec"]) == ["plain", *(f"wide_{number}" for number in range(SIZE))]
    assert place.events == [] and place.server.asked == []


def test_each_of_a_batch_is_told_to_take_another_idea(place):
    place.proposer(batch=True).propose(place.history())
    (calls,) = place.server.batches
    last = [call["params"]["messages"][0]["content"][-1]["text"] for call in calls]
    assert len({call["custom_id"] for call in calls}) == len(set(last)) == SIZE
    assert all("stream" not in call["params"] for call in calls)


def test_a_call_in_a_batch_costs_half(place):
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    proposer.propose(place.history())
    assert proposer.spent(proposer.propose(place.history())).usd == pytest.approx(USD / 2)


def test_while_a_batch_is_out_the_other_proposer_works(place):
    place.server.status, place.server.results = "in_progress", [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    assert proposers(proposer, place, 5) == ["fixed"] * 5 and len(place.server.batches) == 1
    place.server.status = "ended"
    assert proposers(proposer, place, 1) == ["claude"]


def test_where_the_other_has_nothing_the_batch_is_waited_for(place, ends_while_we_wait):
    place.other = Fixed(place.seed, many=0)
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    assert proposers(proposer, place, 1) == ["claude"]


def test_a_batch_that_is_out_for_longer_than_we_are_patient_is_a_stall(place, pauses):
    place.other, place.server.status = Fixed(place.seed, many=0), "in_progress"
    assert place.proposer(batch=True, patience_s=30).propose(place.history()) is None
    assert set(place.kinds) == {Kind.STALL} and len(place.server.batches) == 1
    assert pauses == [10.0] * 9


def test_a_rejected_build_and_a_question_go_on_in_the_next_batch(place):
    question = succeeded(tool("read_variant", {"op": "qmatvec", "name": "plain"}, "toolu_q"))
    place.server.results = [kernel(1), question, *[ERRORED] * (SIZE - 2), *[kernel(9)] * SIZE]
    proposer = place.proposer(batch=True)
    _, candidate = (proposer.propose(place.history()) for _ in range(2))
    proposer.observe(candidate, place.judged(candidate, Status.FAILED_BUILD, "no such name"))
    while len(place.server.batches) < 2:
        proposer.propose(place.history())
    said = [last_results(call["params"]) for call in place.server.batches[1]]
    assert "no such name" in said[0][0]["content"] and "packed_value" in said[1][0]["content"]
    assert said[2:] == [[]] * (SIZE - 2)


@pytest.mark.parametrize(
    ("result", "kind", "usd"),
    [
        (ERRORED, Kind.ERROR, 0),
        ({"type": "expired"}, Kind.ERROR, 0),
        ({"type": "canceled"}, Kind.ERROR, 0),
        (succeeded(text("No."), stop="refusal"), Kind.REFUSAL, USD / 2),
        (succeeded(tool("propose_kernel", KERNEL), stop="max_tokens"), Kind.TRUNCATED, USD / 2),
        (None, Kind.CUT, (5 * 1050 + 20 * 1000) / 2e6),
        ({"type": "succeeded", "message": {"content": 7}}, Kind.MALFORMED, (5 * 1050 + 20 * 1000) / 2e6),
    ],
)
def test_a_call_that_brings_no_proposal_is_an_event_and_the_others_are_read(place, result, kind, usd):
    place.server.results = [result, *[kernel(number) for number in range(1, SIZE)]]
    proposer = place.proposer(batch=True, max_usd=10, max_tokens=1000)
    assert proposers(proposer, place, SIZE) == ["fixed"] + ["claude"] * (SIZE - 1)
    assert place.kinds == [kind] and place.events[0].usd == pytest.approx(usd)


def test_a_batch_that_the_server_has_lost_is_given_up_and_another_is_sent(place):
    proposer = place.proposer(batch=True)
    proposer.propose(place.history())
    place.server.gone = True
    assert proposers(proposer, place, 1) == ["fixed"] and place.kinds == [Kind.CUT] * SIZE
    assert len(place.server.batches) == 2


def test_a_batch_of_which_the_server_does_not_tell_is_asked_for_again(place):
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    proposer.propose(place.history())
    place.server.faults = 1
    assert proposers(proposer, place, 2) == ["fixed", "claude"]
    assert place.kinds == [Kind.ERROR] and len(place.server.batches) == 1


def test_a_batch_holds_as_many_calls_as_the_budget_has_room_for_and_is_still_read(place):
    worst = (5 * 1050 + 20 * 1000) / 2e6
    place.server.results = [kernel(number) for number in range(2)]
    proposer = place.proposer(batch=True, max_usd=2.5 * worst, max_tokens=1000)
    assert proposers(proposer, place, 3) == ["fixed", "claude", "claude"]
    assert [len(calls) for calls in place.server.batches] == [2]


def test_an_exhausted_budget_ends_the_asking(place):
    proposer = place.proposer(batch=True, max_usd=0.001, max_tokens=1000)
    assert proposers(proposer, place, 20) == ["fixed"] * 20
    assert place.kinds == [Kind.BUDGET] and place.server.batches == []


def test_a_batch_that_is_not_taken_costs_nothing_and_is_tried_again(place):
    place.server.will(failed(529))
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True, max_usd=10)
    assert proposers(proposer, place, 3) == ["fixed", "fixed", "claude"]
    assert place.kinds == [Kind.ERROR] and place.events[0].usd == 0


def test_a_batch_that_is_out_at_the_end_is_cancelled(place):
    place.server.status = "in_progress"
    proposer = place.proposer(batch=True, max_usd=10, max_tokens=1000)
    proposer.propose(place.history())
    proposer.close()
    assert place.server.cancelled == 1 and place.kinds == [Kind.UNUSED]
    assert place.events[0].usd == proposer.total_usd == pytest.approx(SIZE * (5 * 1050 + 20 * 1000) / 2e6)


def test_answers_that_are_not_read_are_paid_for(place):
    place.server.results = [kernel(number) for number in range(SIZE)]
    proposer = place.proposer(batch=True)
    _, candidate = (proposer.propose(place.history()) for _ in range(2))
    proposer.close()
    assert place.kinds == [Kind.UNUSED] * (SIZE - 1)
    accounted = sum(event.usd for event in place.events) + proposer.spent(candidate).usd
    assert accounted == pytest.approx(proposer.total_usd) == pytest.approx(SIZE * USD / 2)


def ctrl_c(*_):
    """What a person does while a batch is sent, or waited for."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


WORST = (5 * 1050 + 20 * 1000) / 2e6  # of one call


def test_ctrl_c_while_a_batch_is_sent_is_an_event_with_the_most_that_it_can_have_cost(place):
    def interrupted(request):
        ctrl_c()
        return place.server.stall()(request)

    place.server.will(interrupted)
    proposer = place.proposer(batch=True, max_usd=10, max_tokens=1000)
    with pytest.raises(KeyboardInterrupt):
        proposer.propose(place.history())
    proposer.close()
    assert place.kinds == [Kind.UNUSED] and "Ctrl-C while a batch was sent" in place.events[0].reason
    assert place.events[0].usd == proposer.total_usd == pytest.approx(SIZE * WORST)
    assert sum(call.usd for call in place.calls.values()) == pytest.approx(proposer.total_usd)


def test_ctrl_c_before_a_batch_was_sent_costs_nothing(place):
    def interrupted(request):
        ctrl_c()
        return place.server.stall()(request)

    place.server.count = interrupted
    proposer = place.proposer(batch=True, max_usd=10, max_tokens=1000)
    with pytest.raises(KeyboardInterrupt):
        proposer.propose(place.history())
    proposer.close()
    assert place.kinds == [Kind.UNUSED] and place.events[0].usd == proposer.total_usd == 0
    assert place.server.batches == [] and place.server.cancelled == 0


def test_ctrl_c_while_a_batch_is_waited_for_cancels_it_and_is_an_event(place, monkeypatch):
    place.other, place.server.status = Fixed(place.seed, many=0), "in_progress"
    monkeypatch.setattr(batched, "sleep", ctrl_c)
    proposer = place.proposer(batch=True, max_usd=10, max_tokens=1000)
    with pytest.raises(KeyboardInterrupt):
        proposer.propose(place.history())
    proposer.close()
    assert place.server.cancelled == 1 and place.kinds == [Kind.UNUSED]
    assert place.events[0].usd == proposer.total_usd == pytest.approx(SIZE * WORST)


def test_the_time_that_a_batch_is_waited_for_is_not_the_harness(place, monkeypatch):
    place.other, place.server.status = Fixed(place.seed, many=0), "in_progress"
    now = [0.0]
    monkeypatch.setattr(batched, "sleep", lambda seconds: now.append(now[-1] + seconds))
    meter = Meter(lambda: now[-1])
    with meter.counting():
        place.proposer(batch=True, patience_s=30).propose(place.history())
    assert meter.seconds()[Part.WAITING] == now[-1] == 90

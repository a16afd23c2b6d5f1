"""What is spent never exceeds the cap, whatever happens to a call."""

import math
import signal
import threading

import pytest
from werkzeug import Response

from baseline.errors import UsageError
from harness.propose.claude.budget import Budget, Exhausted
from harness.propose.claude.call import Call
from harness.propose.claude.event import Kind
from harness.propose.claude.price import Usage
from tests.harness.claude.messages_server import cut_after, failed, streamed, tool
from tests.harness.claude.place import KERNEL, USD, numbered

MAX_TOKENS = 1000
WORST = (5 * 1050 + 20 * MAX_TOKENS) / 1e6  # of one call: 1000 tokens counted, 5 % of margin
PROPOSAL = streamed(tool("propose_kernel", KERNEL))
OTHER = streamed(tool("propose_kernel", numbered(1)))
QUESTION = streamed(tool("read_ledger", {"op": "", "status": "", "last": 1}))


def test_a_call_that_could_exceed_the_cap_is_not_made(place):
    proposer = place.proposer(max_usd=WORST - 1e-6, max_tokens=MAX_TOKENS)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.BUDGET] and place.server.asked == []


def test_a_cap_that_just_suffices_does(place):
    place.server.will(PROPOSAL)
    proposer = place.proposer(max_usd=WORST + 1e-6, max_tokens=MAX_TOKENS)
    assert proposer.propose(place.history()).proposer == "claude"


def test_a_budget_that_runs_out_between_two_calls_ends_the_asking(place):
    place.server.will(QUESTION, PROPOSAL)
    proposer = place.proposer(max_usd=WORST + USD / 2, max_tokens=MAX_TOKENS)
    assert [proposer.propose(place.history()).proposer for _ in range(20)] == ["fixed"] * 20
    assert len(place.server.asked) == 1 and place.kinds == [Kind.BUDGET]
    assert place.events[0].usd == pytest.approx(USD)


def test_what_an_earlier_part_of_the_search_spent_counts(place):
    place.earlier = [Call(1, "claude-opus-5-5", Usage(output=1), 1.0, answered=True)]
    proposer = place.proposer(max_usd=1.0 + WORST / 2, max_tokens=MAX_TOKENS)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.BUDGET]


@pytest.mark.parametrize(
    ("call", "usd"),
    [
        (Call(1, "claude-opus-5-5", Usage(input=100, output=50), math.nan, answered=True), (4 * 100 + 20 * 50) / 1e6),
        (Call(1, "claude-opus-5-5", Usage(input=100, output=50), math.nan), (5 * 100 + 20 * 50) / 1e6),
    ],
    ids=["answered", "the most"],
)
def test_what_was_spent_before_the_model_had_a_price_counts_at_the_price_that_it_has_now(place, call, usd):
    place.earlier = [call]
    assert place.proposer(max_usd=1.0).total_usd == pytest.approx(usd)


def test_a_cap_on_what_nobody_can_count_is_refused_in_one_line(place):
    place.earlier = [Call(1, "some-model", Usage(output=1), math.nan, answered=True)]
    with pytest.raises(UsageError, match=r"^proposer.max_usd: what this search has spent on some-model is not known"):
        place.proposer(max_usd=1.0)
    assert math.isnan(place.proposer().total_usd)


def test_a_call_is_recorded_before_it_is_made_and_after_its_answer(place):
    recorded = []

    def look(request):
        recorded.append(place.calls[1])
        return PROPOSAL(request)

    place.server.will(look)
    place.proposer(max_usd=1.0, max_tokens=MAX_TOKENS).propose(place.history())
    assert recorded == [Call(1, "claude-opus-5-5", Usage(input=1050, output=MAX_TOKENS), pytest.approx(WORST))]
    answered = Usage(input=100, cache_write=20, cache_read=1000, output=50)
    assert list(place.calls.values()) == [Call(1, "claude-opus-5-5", answered, pytest.approx(USD), answered=True)]


@pytest.mark.parametrize(("reply", "usd"), [(failed(400), 0.0), (cut_after(1), WORST)], ids=["refused", "cut"])
def test_a_call_without_an_answer_is_recorded_as_what_it_can_have_cost(place, reply, usd):
    place.server.will(reply)
    place.proposer(max_usd=1.0, max_tokens=MAX_TOKENS).propose(place.history())
    assert (place.calls[1].usd, place.calls[1].answered) == (pytest.approx(usd), usd == 0)


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_call_that_was_cut_counts_as_the_most_that_it_can_have_cost(place, pieces):
    place.server.will(cut_after(pieces, tool("propose_kernel", KERNEL)), PROPOSAL)
    proposer = place.proposer(max_usd=2 * WORST - 1e-6, max_tokens=MAX_TOKENS)
    proposer.propose(place.history())
    assert place.events[0].usd == pytest.approx(WORST)
    assert proposer.propose(place.history()).proposer == "fixed"
    assert place.kinds == [Kind.CUT, Kind.BUDGET] and len(place.server.asked) == 1


def test_a_call_that_the_server_refused_costs_nothing(place):
    place.server.will(failed(529, retry_after="0"), failed(400), PROPOSAL)
    proposer = place.proposer(max_usd=WORST + 1e-6, max_tokens=MAX_TOKENS)
    assert [proposer.propose(place.history()).proposer for _ in range(2)] == ["fixed", "claude"]
    assert place.events[0].usd == 0


def test_what_is_counted_is_what_is_asked(place):
    place.server.will(PROPOSAL)
    place.proposer(max_usd=1.0, max_tokens=MAX_TOKENS).propose(place.history())
    (counted,), (asked,) = place.server.counted, place.server.asked
    assert counted == {name: given for name, given in asked.items() if name not in ("max_tokens", "stream")}


def test_nothing_is_counted_without_a_cap(place):
    place.server.will(PROPOSAL)
    place.proposer().propose(place.history())
    assert place.server.counted == []


@pytest.mark.parametrize("reply", [failed(404), lambda _: Response("not json"), lambda _: Response("{}")])
def test_a_server_that_does_not_count_is_taken_to_charge_a_token_for_each_byte(place, reply):
    place.server.count = reply
    place.server.will(PROPOSAL)
    proposer = place.proposer(max_usd=0.2, max_tokens=MAX_TOKENS)
    assert proposer.propose(place.history()).proposer == "fixed"
    left = float(place.events[0].reason.split("$")[1].split(",")[0])
    assert left > 5 * 30_000 / 1e6  # the prompt is longer than that


def test_a_model_without_a_price_is_used_without_a_cap_and_its_dollars_are_not_known(place):
    place.server.will(PROPOSAL)
    proposer = place.proposer(model="some-model")
    spent = proposer.spent(proposer.propose(place.history()))
    assert spent.usd != spent.usd and spent.output == 50


def test_every_dollar_is_a_candidates_or_an_events(place):
    proposer = place.proposer(max_usd=10)
    place.server.will(QUESTION, PROPOSAL, QUESTION, failed(400), QUESTION, cut_after(1), QUESTION, OTHER)
    kept, *_, withdrawn = (proposer.propose(place.history()) for _ in range(4))
    proposer.withdraw(withdrawn)
    proposer.close()
    assert place.kinds == [Kind.ERROR, Kind.CUT, Kind.UNUSED]
    accounted = proposer.spent(kept).usd + sum(event.usd for event in place.events)
    assert accounted == pytest.approx(proposer.total_usd) and proposer.spent(withdrawn) is None


def test_what_ctrl_c_cuts_off_is_accounted_for(place):
    """A question was answered; the answer to the next was under way."""

    def interrupted(request):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return place.server.stall()(request)

    place.server.will(PROPOSAL, QUESTION, interrupted)
    proposer = place.proposer(max_usd=10, max_tokens=MAX_TOKENS)
    candidate = proposer.propose(place.history())
    with pytest.raises(KeyboardInterrupt):
        proposer.propose(place.history(candidate))
    proposer.close()
    assert place.kinds == [Kind.UNUSED] and place.events[0].usd == pytest.approx(USD + WORST)
    assert place.events[0].usd + proposer.spent(candidate).usd == pytest.approx(proposer.total_usd)


def test_held_dollars_count_until_they_are_settled():
    budget = Budget(1.0)
    first, second = (budget.reserve("a model", Usage(), 0.4) for _ in range(2))
    with pytest.raises(Exhausted):
        budget.reserve("a model", Usage(), 0.3)
    first.cost(Usage(), 0.1)
    budget.settle(first)
    assert budget.reserve("a model", Usage(), 0.3).usd == 0.3
    budget.settle(second)
    budget.settle(second)
    assert budget.spent == pytest.approx(0.5)


def test_a_call_that_raises_keeps_its_worst_case():
    budget = Budget(1.0)
    with pytest.raises(KeyError), budget.hold("a model", Usage(), 0.6):
        raise KeyError
    assert budget.spent == 0.6
    with pytest.raises(Exhausted):
        budget.reserve("a model", Usage(), 0.5)


def test_an_answer_costs_what_it_says_it_took(place):
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2}
    place.server.will(streamed(tool("propose_kernel", KERNEL), usage=usage))
    proposer = place.proposer(max_usd=1.0, max_tokens=MAX_TOKENS)
    spent = proposer.spent(proposer.propose(place.history()))
    assert spent.usd == pytest.approx((4 + 40) / 1e6)

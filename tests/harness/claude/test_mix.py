"""Several models in one search: who is asked next, what each costs, and whose everything is."""

import json
import signal
import threading

import pytest

from baseline.errors import UsageError
from harness.candidate import Status
from harness.config import load_config
from harness.propose.claude.batched import SIZE
from harness.propose.claude.event import Kind
from harness.propose.claude.mix import Mix
from harness.propose.claude.settings import ClaudeSettings, forecast
from harness.propose.settings import ProposerSettings
from harness.run_folder import recorded_overrides
from tests.harness.claude.messages_server import failed, message, streamed, tool
from tests.harness.claude.place import USD, numbered
from tests.harness.rows import row

OPUS, SONNET = BOTH = ("claude-opus-5-5", "claude-sonnet-5-5")
SONNETS_USD = (2 * 100 + 2.5 * 20 + 0.2 * 1000 + 10 * 50) / 1e6  # of one scripted answer
MAX_TOKENS = 1000
WORST = {OPUS: (5 * 1050 + 20 * MAX_TOKENS) / 1e6, SONNET: (2.5 * 1050 + 10 * MAX_TOKENS) / 1e6}


def proposed(number):
    idea = ("", "wider loads", "fewer stores", "rows together")[number]
    return streamed(tool("propose_kernel", numbered(number) | {"hypothesis": idea}, f"toolu_{number}"))


def of_model(model, status=Status.KEPT, speedup=2.0):
    return row(model=model, status=status, speedup=speedup)


def judge(place, proposer, candidate, status, speedup=1.0):
    """A candidate's outcome, with the model that made it, as the ledger has it."""
    model = proposer.spent(candidate).model
    made = place.judged(candidate, status, model=model, speedup=speedup, hypothesis=candidate.hypothesis)
    proposer.observe(candidate, made)


def test_who_was_never_asked_gets_a_turn():
    assert Mix(BOTH).choose([]) == OPUS
    assert Mix(BOTH).choose([of_model(OPUS, Status.DISCARDED, 1.0)]) == SONNET
    assert Mix(BOTH).choose([row()] * 9) == OPUS  # candidates of no model say nothing of any


def test_who_brought_more_is_asked_more_often_and_the_other_now_and_then():
    rows, worth = [], {OPUS: 1.0, SONNET: 1.3}
    for _ in range(60):
        model = Mix(BOTH).choose(rows)
        rows.append(of_model(model, Status.KEPT if worth[model] > 1 else Status.DISCARDED, worth[model]))
    asked = [made.model for made in rows]
    assert asked.count(SONNET) > 2 * asked.count(OPUS) > 4


@pytest.mark.parametrize("status", [Status.WRONG, Status.FAILED_BUILD, Status.CRASHED, Status.DISHONEST])
def test_a_candidate_that_failed_is_worse_than_one_that_was_no_faster(status):
    rows = [of_model(OPUS, status, float("nan")), of_model(SONNET, Status.DISCARDED, 1.0)]
    assert Mix(BOTH).choose(rows) == SONNET


def test_those_that_are_asked_at_once_are_spread():
    asked = []
    for _ in range(6):
        asked.append(Mix(BOTH).choose([], asked))
    assert sorted(asked) == [OPUS] * 3 + [SONNET] * 3


def test_each_candidate_has_its_model_and_that_ones_price(place):
    place.server.will(proposed(1), proposed(2))
    proposer = place.proposer(model=BOTH)
    spent = []
    for _ in range(2):
        candidate = proposer.propose(place.history())
        spent.append(proposer.spent(candidate))
        judge(place, proposer, candidate, Status.DISCARDED)
    assert [asked["model"] for asked in place.server.asked] == [one.model for one in spent] == [OPUS, SONNET]
    assert [one.usd for one in spent] == pytest.approx([USD, SONNETS_USD])
    assert [call.model for call in place.calls.values()] == [OPUS, SONNET]


def test_a_repair_goes_back_to_the_model_that_wrote_it(place):
    place.server.will(*(proposed(number) for number in range(1, 4)))
    proposer = place.proposer(model=BOTH, repairs=1)
    for _ in range(3):
        judge(place, proposer, proposer.propose(place.history()), Status.FAILED_BUILD)
    assert [asked["model"] for asked in place.server.asked] == [OPUS, OPUS, SONNET]


def test_a_model_that_the_server_does_not_know_is_left_for_the_other(place):
    place.server.will(failed(404), proposed(1), proposed(2))
    proposer = place.proposer(model=BOTH)
    makers = []
    for _ in range(3):
        candidate = proposer.propose(place.history())
        makers.append(candidate.proposer)
        if candidate.proposer == "claude":
            judge(place, proposer, candidate, Status.DISCARDED)
    assert makers == ["fixed", "claude", "claude"]
    assert [asked["model"] for asked in place.server.asked] == [OPUS, SONNET, SONNET]
    assert [event.model for event in place.events] == [OPUS]


def test_who_is_too_dear_for_what_is_left_is_not_asked_any_more_and_the_other_is(place):
    place.server.will(proposed(1))
    proposer = place.proposer(model=BOTH, max_usd=(WORST[OPUS] + WORST[SONNET]) / 2, max_tokens=MAX_TOKENS)
    assert [proposer.propose(place.history()).proposer for _ in range(2)] == ["fixed", "claude"]
    assert [asked["model"] for asked in place.server.asked] == [SONNET]
    assert [(event.kind, event.model) for event in place.events] == [(Kind.BUDGET, OPUS)]


@pytest.mark.parametrize("models", [("some-model", OPUS), (OPUS, "some-model")])
def test_a_cap_needs_a_price_of_each(place, models):
    with pytest.raises(UsageError, match=r"^proposer.max_usd: some-model has no price in [^\n]*$"):
        place.proposer(model=models, max_usd=1.0)
    assert "some-model has no price" not in forecast(ClaudeSettings(BOTH), 10, 1.0)


def test_a_batch_asks_all_and_what_it_counts_as_is_told_of_each(place):
    place.server.status = "in_progress"
    proposer = place.proposer(model=BOTH, batch=True, max_usd=10, max_tokens=MAX_TOKENS)
    proposer.propose(place.history())
    ((*calls,),) = place.server.batches
    assert sorted(call["params"]["model"] for call in calls) == [OPUS] * (SIZE // 2) + [SONNET] * (SIZE // 2)
    proposer.close()
    told = {event.model: event.usd for event in place.events}
    assert told == {model: pytest.approx(SIZE // 2 * WORST[model] / 2) for model in BOTH}
    assert sum(told.values()) == pytest.approx(proposer.total_usd)


def test_an_answer_of_a_batch_is_its_models(place):
    answers = [message(tool("propose_kernel", numbered(number))) for number in range(1, SIZE + 1)]
    place.server.results = [{"type": "succeeded", "message": answer} for answer in answers]
    proposer = place.proposer(model=BOTH, batch=True)
    _, *candidates = (proposer.propose(place.history()) for _ in range(1 + SIZE))
    spent = [proposer.spent(candidate) for candidate in candidates]
    assert [one.model for one in spent] == [call["params"]["model"] for call in place.server.batches[0]]
    assert {one.model: one.usd for one in spent} == pytest.approx({OPUS: USD / 2, SONNET: SONNETS_USD / 2})


def test_ctrl_c_while_a_batch_is_sent_is_an_event_of_each(place):
    def interrupted(request):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return place.server.stall()(request)

    place.server.will(interrupted)
    proposer = place.proposer(model=BOTH, batch=True, max_usd=10, max_tokens=MAX_TOKENS)
    with pytest.raises(KeyboardInterrupt):
        proposer.propose(place.history())
    assert {event.model for event in place.events} == {*BOTH}
    assert sum(event.usd for event in place.events) == pytest.approx(proposer.total_usd)


@pytest.mark.parametrize("models", [(), ("",), (OPUS, ""), (OPUS, OPUS)])
def test_models_that_cannot_be_are_refused(models):
    with pytest.raises(UsageError, match=r"proposer.model"):
        ClaudeSettings(models)


@pytest.mark.parametrize("given", [OPUS, f"[{OPUS},{SONNET}]"])
def test_a_resumed_search_asks_the_same_models(tmp_path, given):
    def chosen(overrides):
        config = load_config(overrides)
        return ProposerSettings.given(vars(config.proposer))

    began = chosen(["proposer=claude", f"proposer.model={given}"])
    record = {"name": began.name, "claude": {**vars(began.claude)}}
    others = {
        "target": "cpu",
        "ops": ["io"],
        "min_gain": 0.02,
        "state": "warm",
        "variants": "all",
        "io": {},
        "judge": {},
    }
    (tmp_path / "settings.json").write_text(json.dumps({**others, "proposer": record}))
    again = chosen([given for given in recorded_overrides(tmp_path) if given.startswith("proposer")])
    assert again == began and again.claude.models == ((OPUS,) if given == OPUS else BOTH)

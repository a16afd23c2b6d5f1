"""What was refuted or tried is not proposed again without a word of what has changed: the model is told of it."""

from dataclasses import replace

import pytest

from harness.candidate import KernelSpec, Status, identify
from harness.propose.base import History
from harness.propose.claude.event import Kind
from harness.refutations import CONDITION
from tests.harness.claude.messages_server import streamed, tool
from tests.harness.claude.place import KERNEL, POLICY, USD, last_results, numbered

MAPPED = POLICY | {"hypothesis": "map the experts with mmap()"}  # refuted in prior.tsv, as c-mmap
NAMED = {"changed_condition": "the experts  fit in memory\nhere"}
OTHER = numbered(1) | {"hypothesis": "larger tiles"}


def proposed(arguments, call="toolu_1"):
    return streamed(tool("propose_io_policy" if "cache" in arguments else "propose_kernel", arguments, call))


def beside(place, configuration) -> History:
    """A search whose champion has come to be another configuration."""
    champion = replace(place.seed, id=identify(configuration, place.shelf), configuration=configuration)
    return History(place.seed, champion, place.rows)


def objection(place) -> str:
    """What the model was told of its last proposal but one."""
    (result,) = last_results(place.server.asked[-1])
    assert result["is_error"] and "\n" not in result["content"]
    return result["content"]


def test_what_others_refuted_is_answered_with_the_objection_until_a_changed_condition_is_named(place):
    place.server.will(proposed(MAPPED), proposed(MAPPED | NAMED, "toolu_2"))
    candidate = place.proposer().propose(place.history())
    assert objection(place).startswith("repeats c-mmap: ") and CONDITION in objection(place)
    end = " (expected: 1.05x) Changed condition: the experts fit in memory here"
    assert candidate.hypothesis == MAPPED["hypothesis"] + end
    assert place.kinds == [Kind.REPEATED] and "c-mmap" in place.events[0].reason


def test_an_idea_that_lost_in_this_search_is_no_new_one_in_other_code(place):
    proposer = place.proposer()
    place.server.will(proposed(KERNEL))
    lost = proposer.propose(place.history())
    proposer.observe(lost, place.judged(lost, Status.DISCARDED, hypothesis=lost.hypothesis))
    again = numbered(1) | {"expected_gain": 1.9}
    place.server.will(proposed(again), proposed(again | NAMED, "toolu_2"))
    candidate = proposer.propose(place.history())
    assert objection(place).startswith(f"repeats {lost.id}: wide ") and candidate.proposer == "claude"
    variant = place.shelf["qmatvec"]["wide_1"]
    assert variant.hypothesis == candidate.hypothesis and CONDITION in variant.hypothesis


def test_an_idea_that_was_only_written_wrongly_may_be_written_again(place):
    proposer = place.proposer()
    place.server.will(proposed(KERNEL), proposed(numbered(1), "toolu_2"))
    wrong = proposer.propose(place.history())
    proposer.observe(wrong, place.judged(wrong, Status.WRONG, hypothesis=wrong.hypothesis))
    assert proposer.propose(place.history()).proposer == "claude" and place.events == []


def test_a_kernel_that_differs_in_names_and_numbers_alone_is_answered_with_its_twin(place):
    proposer = place.proposer()
    place.server.will(proposed(KERNEL))
    first = proposer.propose(place.history())
    renamed = {name: text.replace("twice", "double_of") for name, text in KERNEL.items() if name in ("helpers", "body")}
    place.server.will(proposed(KERNEL | renamed | {"hypothesis": "another"}), proposed(OTHER, "toolu_2"))
    assert proposer.propose(place.history(first)).proposer == "claude"
    assert objection(place) == "same as wide but for names"
    assert sorted(place.shelf["qmatvec"]) == ["plain", "wide", "wide_1"]


def test_a_policy_that_lost_beside_another_champion_needs_a_changed_condition(place):
    proposer = place.proposer()
    place.server.will(proposed(POLICY))
    lost = proposer.propose(place.history())
    proposer.observe(lost, place.judged(lost, Status.TOO_SLOW, hypothesis="I/O: cache os -> direct"))
    other = place.seed.configuration.with_kernel("qmatvec", KernelSpec("plain", {"THREADS": 1}))
    again = POLICY | {"hypothesis": "the disk idles"}
    place.server.will(proposed(again), proposed(again | NAMED, "toolu_2"))
    candidate = proposer.propose(beside(place, other))
    assert objection(place).startswith(f"repeats {lost.id}: ") and candidate.changed == "io"
    assert candidate.id != lost.id and CONDITION in candidate.hypothesis


def test_a_kernel_that_lost_beside_another_champion_is_not_tried_again(place):
    proposer = place.proposer()
    place.server.will(proposed(KERNEL))
    lost = proposer.propose(place.history())
    proposer.observe(lost, place.judged(lost, Status.CRASHED))
    history = beside(place, place.seed.configuration.with_io("threads", 1))
    place.server.will(proposed(KERNEL, "toolu_2"), proposed(OTHER, "toolu_3"))
    assert proposer.propose(history).proposer == "claude"
    assert objection(place) == f"that is the kernel of candidate {lost.id}: crashed"


@pytest.mark.parametrize("repairs", [0, 2])
def test_each_objection_is_a_repair_and_without_one_left_the_conversation_ends(place, repairs):
    place.server.will(*[proposed(MAPPED)] * (repairs + 1), proposed(OTHER))
    proposer = place.proposer(repairs=repairs)
    assert [proposer.propose(place.history()).proposer for _ in range(2)] == ["fixed", "claude"]
    assert [len(asked["messages"]) for asked in place.server.asked] == [*range(1, 2 * repairs + 2, 2), 1]
    assert place.kinds == [Kind.REPEATED] * (repairs + 2) and "no repair is left" in place.events[-1].reason
    assert sum(event.usd for event in place.events) == pytest.approx((repairs + 1) * USD)


def test_objections_and_rejected_builds_count_together(place):
    proposer = place.proposer(repairs=1)
    place.server.will(proposed(MAPPED), proposed(KERNEL, "toolu_2"), proposed(OTHER, "toolu_3"))
    broken = proposer.propose(place.history())
    proposer.observe(broken, place.judged(broken, Status.FAILED_BUILD, "no such name"))
    proposer.propose(place.history())
    assert [len(asked["messages"]) for asked in place.server.asked] == [1, 3, 1]

"""The proposer that asks a model: the real SDK against a real server on this machine, which answers from a script."""

import json

import pytest

from harness.candidate import KernelSpec, Status, identify
from harness.costs import Meter, Part
from harness.propose.claude.event import Kind
from harness.settings import DEFAULT_IO
from tests.harness.claude.messages_server import streamed, text, thinking, tool
from tests.harness.claude.place import KERNEL, LAYOUT, POLICY, USD, last_results, numbered


def test_a_proposed_kernel_is_on_the_shelf_and_in_the_candidate(place):
    place.server.will(streamed(tool("propose_kernel", KERNEL)))
    candidate = place.proposer().propose(place.history())
    assert candidate.configuration.kernels["qmatvec"] == KernelSpec("wide", {"ROWS": 4})
    assert candidate.id == identify(candidate.configuration, place.shelf)
    assert (candidate.parent, candidate.proposer, candidate.changed) == (place.seed.id, "claude", "qmatvec")
    assert candidate.hypothesis == "wider loads (expected: 1.20x)"
    variant = place.shelf["qmatvec"]["wide"]
    assert variant.body.strip() == KERNEL["body"] and variant.helpers.strip() == KERNEL["helpers"]
    assert (variant.tunables, variant.parent, variant.supports["BITS"]) == ({"ROWS": (4, 2)}, "plain", (4,))


def test_a_proposed_kernel_says_when_its_tunables_have_a_meaning(place):
    when = [{"tunable": "STAGED", "values": [1]}]
    tunables = [{"name": "STAGED", "values": [1, 0], "when": []}, {"name": "ROWS", "values": [4, 2], "when": when}]
    late = [{"tunable": "LATE", "values": [1]}]
    wrong = KERNEL | {"tunables": [*tunables, {"name": "DEEP", "values": [1], "when": late}]}
    place.server.will(
        streamed(tool("propose_kernel", wrong)), streamed(tool("propose_kernel", wrong | {"tunables": tunables}))
    )
    place.proposer().propose(place.history())
    assert "DEEP depends on LATE" in last_results(place.server.asked[1])[0]["content"]
    assert place.shelf["qmatvec"]["wide"].when == {"ROWS": {"STAGED": (1,)}}


def test_a_proposed_io_policy_is_a_candidate_that_changes_io_alone(place):
    place.server.will(streamed(tool("propose_io_policy", POLICY)))
    candidate = place.proposer().propose(place.history())
    assert candidate.changed == "io" and candidate.configuration.kernels == place.seed.configuration.kernels
    assert candidate.configuration.io == DEFAULT_IO | {"threads": 8, "cache": "direct"}


def test_a_proposed_layout_is_a_candidate_that_changes_it_alone(place):
    place.server.will(streamed(tool("propose_layout", LAYOUT)))
    candidate = place.proposer().propose(place.history())
    assert candidate.changed == "layout" and candidate.configuration.kernels == place.seed.configuration.kernels
    layout = place.shelf.layouts["down_first"]
    assert candidate.configuration.layout == layout and layout.order[0] == "down_proj.weight"
    assert (layout.align, layout.tensor_align) == (16384, 64)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"align": 1000}, "align is 1000"),
        ({"tensor_align": 3}, "tensor_align is 3"),
        ({"order": []}, "order must name"),
    ],
)
def test_a_layout_that_cannot_be_goes_back(wrong, why, place):
    place.server.will(streamed(tool("propose_layout", LAYOUT | wrong)), streamed(tool("propose_layout", LAYOUT)))
    assert place.proposer().propose(place.history()).changed == "layout"
    assert why in json.dumps(last_results(place.server.asked[-1]))


def test_a_candidate_knows_what_it_took(place):
    proposer = place.proposer()
    place.server.will(streamed(tool("read_ledger", {"op": "", "status": "", "last": 5})))
    place.server.will(streamed(tool("propose_kernel", KERNEL)))
    spent = proposer.spent(proposer.propose(place.history()))
    assert (spent.model, spent.input, spent.cached, spent.output) == ("claude-opus-5-5", 2240, 2000, 100)
    assert spent.usd == pytest.approx(2 * USD) and place.events == []


def test_the_time_that_the_model_takes_is_not_the_harness(place):
    now = [0.0]

    def slowly(request):
        now.append(7.0)
        return streamed(tool("propose_kernel", KERNEL))(request)

    place.server.will(slowly)
    meter = Meter(lambda: now[-1])
    with meter.counting():
        place.proposer().propose(place.history())
    assert meter.seconds()[Part.WAITING] == sum(meter.seconds().values()) == 7


def test_the_stable_part_of_the_prompt_comes_first_is_cached_and_stays(place):
    proposer = place.proposer()
    place.server.will(streamed(tool("propose_kernel", KERNEL)), streamed(tool("propose_io_policy", POLICY)))
    first = proposer.propose(place.history())
    proposer.observe(first, place.judged(first, Status.DISCARDED, reason="", hypothesis=first.hypothesis))
    proposer.propose(place.history())
    blocks = [asked["messages"][0]["content"] for asked in place.server.asked]
    (end,) = [at for at, block in enumerate(blocks[0][:-1]) if "cache_control" in block]
    assert blocks[0][: end + 1] == blocks[1][: end + 1]
    assert all(asked["tools"] == place.server.asked[0]["tools"] for asked in place.server.asked)
    stable = "\n".join(block["text"] for block in blocks[0][: end + 1])
    for part in ("digest", "Contract of qmatvec", "n_threads", "cpu_prelude.h", "memory: 34 GB/s"):
        assert part in stable
    changing = "\n".join(block["text"] for block in blocks[1][end + 1 :])
    for part in (place.seed.id, "packed_value", "-2 % on M3 Max", first.id, "2.000x"):
        assert part in changing


def test_the_paper_takes_the_digests_place_as_a_document(place):
    paper = place.run / "paper.pdf"
    paper.write_bytes(b"%PDF-1.4 something")
    place.server.will(streamed(tool("propose_kernel", KERNEL)))
    place.proposer(paper=paper).propose(place.history())
    first = place.server.asked[0]["messages"][0]["content"][0]
    assert (first["type"], first["source"]["media_type"]) == ("document", "application/pdf")
    assert "digest" not in json.dumps(place.server.asked[0]["messages"])


def test_read_only_tools_answer_and_the_model_goes_on(place):
    place.server.will(
        streamed(text("First I look."), tool("read_variant", {"op": "qmatvec", "name": "plain"})),
        streamed(tool("read_variant", {"op": "qmatvec", "name": "../../../etc/passwd"}, "toolu_2")),
        streamed(tool("propose_kernel", KERNEL, "toolu_3")),
    )
    assert place.proposer().propose(place.history()) is not None
    (source,), (refused,) = map(last_results, place.server.asked[1:])
    assert source["tool_use_id"] == "toolu_1" and "packed_value" in source["content"] and not source["is_error"]
    assert refused["is_error"] and "has no variant" in refused["content"]


def test_what_the_model_said_goes_back_as_it_came_thinking_included(place):
    said = [thinking("c2ln"), text("First I look."), tool("read_variant", {"op": "qmatvec", "name": "plain"})]
    place.server.will(streamed(*said), streamed(tool("propose_kernel", KERNEL, "toolu_2")))
    place.proposer().propose(place.history())
    assert place.server.asked[1]["messages"][1] == {"role": "assistant", "content": said}


def test_a_rejected_build_goes_back_with_the_compilers_words_as_often_as_is_allowed(place):
    proposer = place.proposer(repairs=2)
    for number in range(3):
        place.server.will(streamed(tool("propose_kernel", numbered(number), f"toolu_{number}")))
        candidate = proposer.propose(place.history())
        log = f"body:{number}: error: no twice"
        proposer.observe(candidate, place.judged(candidate, Status.FAILED_BUILD, log, reason="no twice"))
    turns = [len(asked["messages"]) for asked in place.server.asked]
    assert turns == [1, 3, 5]
    (result,) = last_results(place.server.asked[2])
    assert result["tool_use_id"] == "toolu_1" and "body:1: error: no twice" in result["content"]
    place.server.will(streamed(tool("propose_io_policy", POLICY)))
    proposer.propose(place.history())
    assert len(place.server.asked[3]["messages"]) == 1


def test_a_kernel_that_was_right_or_dishonest_does_not_go_back(place):
    proposer = place.proposer()
    for number, status in enumerate((Status.DISCARDED, Status.KEPT, Status.DISHONEST, Status.IMPOSSIBLE)):
        place.server.will(streamed(tool("propose_kernel", numbered(number))))
        candidate = proposer.propose(place.history())
        proposer.observe(candidate, place.judged(candidate, status))
    assert [len(asked["messages"]) for asked in place.server.asked] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tunables": [{"name": "ROWS", "values": "4", "when": []}]}, "tunables.0.values"),
        ({"launch": {"threads": 2, "blocks": 3}}, "launch"),
        ({"expected_gain": "a lot"}, "expected_gain"),
        ({"op": "softmax"}, "'softmax'"),
        ({"target": "metal", "launch": {"grid": [1, 1, 1], "threadgroup": [1, 1, 1]}}, "'metal'"),
        ({"name": "../wide"}, "name"),
        ({"supports": [{"name": "BITS", "values": [5]}]}, "BITS"),
        ({"body": "// helpers\n// body\n"}, "body"),
    ],
)
def test_an_unsound_proposal_goes_back_leaves_nothing_and_is_recorded(place, wrong, said):
    place.server.will(streamed(tool("propose_kernel", KERNEL | wrong)), streamed(tool("propose_kernel", KERNEL)))
    assert place.proposer().propose(place.history()).changed == "qmatvec"
    (result,) = last_results(place.server.asked[1])
    assert result["is_error"] and said in result["content"]
    assert place.kinds == [Kind.MALFORMED] and said in place.events[0].reason
    assert sorted(place.shelf["qmatvec"]) == ["plain", "wide"]


def test_what_was_tried_is_not_proposed_again(place):
    proposer = place.proposer()
    place.server.will(streamed(tool("propose_io_policy", POLICY)))
    first = proposer.propose(place.history())
    place.server.will(streamed(tool("propose_io_policy", POLICY)), streamed(tool("propose_kernel", KERNEL)))
    assert proposer.propose(place.history(first)).changed == "qmatvec"
    assert "not judged yet" in last_results(place.server.asked[2])[0]["content"]


def test_an_answer_without_a_tool_call_is_asked_for_one(place):
    place.server.will(streamed(text("Hm."), stop="end_turn"), streamed(tool("propose_kernel", KERNEL)))
    assert place.proposer().propose(place.history()) is not None
    assert place.server.asked[1]["messages"][-1]["content"][0]["text"].startswith("Answer with a call")
    assert place.kinds == [Kind.MALFORMED]


def test_two_proposals_at_once_the_second_is_not_looked_at(place):
    proposer = place.proposer()
    place.server.will(streamed(tool("propose_kernel", KERNEL), tool("propose_io_policy", POLICY, "toolu_2")))
    candidate = proposer.propose(place.history())
    assert candidate.changed == "qmatvec"
    proposer.observe(candidate, place.judged(candidate, Status.WRONG, reason="no"))
    place.server.will(streamed(tool("propose_io_policy", POLICY, "toolu_3")))
    proposer.propose(place.history())
    assert {block["tool_use_id"] for block in last_results(place.server.asked[1])} == {"toolu_1", "toolu_2"}

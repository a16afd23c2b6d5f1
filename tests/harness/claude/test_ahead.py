"""A model is asked between two measurements: nothing waits for its answer but the search."""

import pytest

from harness.ahead import Queue
from harness.propose.claude.proposer import FAILURES
from tests.harness.claude.messages_server import failed, streamed, tool
from tests.harness.claude.place import KERNEL


@pytest.mark.parametrize("batch", [False, True])
def test_a_model_is_not_asked_while_a_candidate_waits_to_be_measured(place, batch):
    queue = Queue(place.proposer(batch=batch), place.seed, [])
    place.server.will(*[] if batch else [streamed(tool("propose_kernel", KERNEL))])
    taken = queue.take(place.seed, place.rows, place.shelf)
    asked = len(place.server.asked), len(place.server.batches)
    assert queue.peek(place.seed, place.rows, taken) is None
    assert asked == (len(place.server.asked), len(place.server.batches)) == ((0, 1) if batch else (1, 0))


def test_while_the_model_cannot_be_had_the_other_proposer_is_asked_ahead(place):
    queue = Queue(place.proposer(), place.seed, [])
    place.server.will(*[failed(400)] * FAILURES)
    for _ in range(FAILURES):
        taken = queue.take(place.seed, place.rows, place.shelf)
    assert queue.peek(place.seed, place.rows, taken).proposer == "fixed" and len(place.server.asked) == FAILURES

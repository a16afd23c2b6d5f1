"""Reading ahead: what it changes is where records lie, and when they are read."""

import os
import time

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import native
from tests.expert_files import EXPERTS, METHODS, STRIDE


def by_slot(records: mx.array, slots: mx.array) -> np.ndarray:
    return np.array(records).view(np.uint8)[np.array(slots)]


@settings(max_examples=40)
@given(
    tokens=st.lists(st.lists(st.integers(0, EXPERTS - 1), min_size=3, max_size=3), min_size=1, max_size=12),
    layers=st.integers(1, 3),
    uring=st.sampled_from(METHODS),
    ahead=st.integers(1, 5),
)
def test_reading_ahead_changes_where_records_lie_and_nothing_else(packed, tokens, layers, uring, ahead):
    """`ahead` tokens are evaluated at once, so that their buffers are taken before they are read into."""
    path, records = packed
    file = native.ExpertFile(str(path), 7, EXPERTS, STRIDE, True)
    chain = [native.Prefetch(file, 2, 1, uring) for _ in range(layers)]
    for one, after in zip(chain, [*chain[1:], chain[0]], strict=True):
        one.set_next(after)
    before = native.counters()
    for start in range(0, len(tokens), ahead):
        found = [
            native.expert_read(file, mx.array(experts), [(mx.uint32, [2], 64)], 2, 1, uring, prefetch)
            for experts in tokens[start : start + ahead]
            for prefetch in chain
        ]
        mx.eval(found)
        for (got, view, slots), experts in zip(found, np.repeat(tokens[start:], layers, axis=0), strict=False):
            assert np.array_equal(by_slot(got, slots), records[experts])
            assert np.array_equal(by_slot(view, slots), records[experts, 64:72])
            assert sorted(slots.tolist()) == [0, 1, 2]
    after = native.counters()
    assert after["prefetch_hit_bytes"] - before["prefetch_hit_bytes"] <= len(tokens) * layers * 3 * STRIDE
    assert after["prefetch_hit_bytes"] <= after["prefetched_bytes"] <= after["read_bytes"]


def test_what_the_previous_token_used_is_not_read_again(packed):
    file = native.ExpertFile(str(packed[0]), 7, EXPERTS, STRIDE, False)
    prefetch = native.Prefetch(file, 1, 1, False)
    prefetch.set_next(prefetch)

    def token(experts: list[int]) -> int:
        """Bytes of it that were there."""
        before = native.counters()["prefetch_hit_bytes"]
        records, slots = native.expert_read(file, mx.array(experts), [], 1, 1, False, prefetch)
        mx.eval(records)
        assert np.array_equal(by_slot(records, slots), packed[1][experts])
        return native.counters()["prefetch_hit_bytes"] - before

    def settle(nbytes: int) -> None:
        """Wait until so many bytes more have been read ahead than when the last token began."""
        until = time.monotonic() + 20
        while native.counters()["prefetched_bytes"] < nbytes:
            assert time.monotonic() < until
            time.sleep(0.001)

    start = native.counters()["prefetched_bytes"]
    assert token([0, 1, 2]) == 0
    settle(start + 3 * STRIDE)
    assert token([2, 3, 0]) == 2 * STRIDE
    settle(start + 6 * STRIDE)
    assert token([4, 5, 1]) == 0


def test_a_failed_read_ahead_is_an_error_only_where_the_expert_is_needed(packed, tmp_path):
    path = tmp_path / "cut.bin"
    path.write_bytes(packed[0].read_bytes())
    file = native.ExpertFile(str(path), 7, EXPERTS, STRIDE, False)
    prefetch = native.Prefetch(file, 1, 1, False)
    prefetch.set_next(prefetch)
    mx.eval(native.expert_read(file, mx.array([0, 4]), [], 1, 1, False, prefetch))
    mx.eval(native.expert_read(file, mx.array([4, 0]), [], 1, 1, False, prefetch))
    os.truncate(path, 2 * STRIDE)
    for _ in range(2):  # the first may find expert 4 read before the cut
        mx.eval(native.expert_read(file, mx.array([0, 1]), [], 1, 1, False, prefetch))
    with pytest.raises(RuntimeError, match="layer 7, expert 4: the file ends"):
        mx.eval(native.expert_read(file, mx.array([0, 4]), [], 1, 1, False, prefetch))
    records, slots = native.expert_read(file, mx.array([1, 0]), [], 1, 1, False, prefetch)
    mx.eval(records)
    assert np.array_equal(by_slot(records, slots), packed[1][[1, 0]])

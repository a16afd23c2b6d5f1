"""Experts where the page cache holds them: a mapped file's records, and what is read for them."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import native
from harness.bench.pages import PAGE, Pages, mappings
from tests.expert_files import EXPERTS, STRIDE, read, write_records
from tests.models import GPU

LARGE = 1 << 20  # a record that no other's readahead reaches, from one end of the file to the other
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
pytestmark = pytest.mark.skipif(GPU, reason="is for MLX's CPU build")


def mapped(path: Path, stride: int = STRIDE) -> native.MappedExperts:
    return native.MappedExperts(native.ExpertFile(str(path), 7, EXPERTS, stride))


def bytes_of(records: mx.array) -> np.ndarray:
    return np.array(records).view(np.uint8)


def slots(experts: native.MappedExperts, indices: object, **options: object) -> list[int]:
    found = native.expert_map(experts, mx.array(indices), **options)
    mx.eval(found)
    assert found.dtype == mx.int32
    return found.tolist()


def test_the_records_are_the_files_bytes_and_those_of_expert_read(packed):
    path, records = packed
    experts = mapped(path)
    assert experts.records.dtype == mx.uint32 and experts.records.shape == (EXPERTS, STRIDE // 4)
    assert np.array_equal(bytes_of(experts.records), records)
    chosen = [4, 0, 4, 5]
    (got,) = read(path, chosen)
    assert mx.array_equal(experts.records[mx.array(slots(experts, chosen))], got)


@settings(max_examples=40)
@given(chosen=st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=20), threads=st.integers(1, 9))
def test_the_slots_are_the_indices_in_order(packed, chosen, threads):
    native.reserve_threads(threads)
    assert slots(mapped(packed[0]), chosen, threads=threads) == chosen


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.int64])
def test_indices_of_any_integer_type_and_shape(packed, dtype):
    indices = mx.array([[5, 0], [2, 3]]).astype(dtype).T  # not contiguous
    assert slots(mapped(packed[0]), indices) == [5, 2, 0, 3]


@pytest.mark.parametrize("expert", [EXPERTS, -1, 2**30])
def test_an_expert_that_does_not_exist_is_an_error(packed, expert):
    experts = mapped(packed[0])
    with pytest.raises(RuntimeError, match=rf"layer_07.bin: layer 7, expert {expert}: no such expert"):
        slots(experts, [0, expert])
    assert slots(experts, [3]) == [3]


@pytest.mark.parametrize("size", [0, 1, STRIDE, EXPERTS * STRIDE - 1])
def test_a_file_that_is_too_short_says_how_many_bytes_are_missing(packed, tmp_path, size):
    path = tmp_path / "cut.bin"
    path.write_bytes(packed[0].read_bytes()[:size])
    missing = EXPERTS * STRIDE - size
    with pytest.raises(RuntimeError, match=rf"cut.bin: layer 7, expert 5: the file ends {missing} bytes too early"):
        mapped(path)


def test_no_threads_are_refused(packed):
    with pytest.raises(ValueError, match="threads must be at least 1"):
        native.expert_map(mapped(packed[0]), mx.array([0]), threads=0)


def test_what_is_cached_is_not_read(packed):
    experts = mapped(packed[0])
    packed[0].read_bytes()
    before = native.counters()
    for _ in range(20):
        assert slots(experts, [*range(EXPERTS)]) == [*range(EXPERTS)]
    after = native.counters()
    assert (after["read_bytes"], after["reads"]) == (before["read_bytes"], before["reads"])


@pytest.fixture
def dropped(tmp_path: Path) -> Iterator[tuple[Path, np.ndarray, native.MappedExperts]]:
    """A file of large records, what is in it, and its experts, none of which the page cache holds."""
    path = tmp_path / "layer_07.bin"
    records = write_records(path, LARGE)
    experts = mapped(path, LARGE)
    pages = Pages(path, [(0, records.nbytes)])
    try:
        pages.drop()
    except (RuntimeError, OSError) as error:  # tmpfs is one
        pytest.skip(f"this file system keeps what it has in memory: {error}")
    yield path, records, experts


def cached(path: Path, expert: int) -> bool:
    return Pages(path, [(expert * LARGE, (expert + 1) * LARGE)]).cached() == LARGE // PAGE


@NEEDS_PROC
def test_what_is_not_cached_is_read_once_in_as_many_pieces_as_threads(dropped):
    path, records, experts = dropped
    for expert in (5, 0):
        missing = not cached(path, expert)
        assert missing or expert != 5
        before = native.counters()
        assert slots(experts, [expert, expert], threads=3) == [expert, expert]
        after = native.counters()
        assert after["read_bytes"] - before["read_bytes"] == missing * LARGE
        assert after["reads"] - before["reads"] >= missing * 3
        assert cached(path, expert)
    assert np.array_equal(bytes_of(experts.records), records)


@NEEDS_PROC
def test_a_record_of_which_a_part_is_missing_is_read(dropped):
    path, records, experts = dropped
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # without readahead
        os.pread(file.fileno(), LARGE // 2, 0)
    assert not cached(path, 0)
    before = native.counters()["read_bytes"]
    assert slots(experts, [0]) == [0]
    assert native.counters()["read_bytes"] - before == LARGE and cached(path, 0)
    assert np.array_equal(bytes_of(experts.records[:1]), records[:1])


@NEEDS_PROC
def test_records_and_slots_outlive_their_experts_and_the_mapping_goes_with_them(packed, tmp_path):
    path = tmp_path / "layer_07.bin"
    path.write_bytes(packed[0].read_bytes())
    experts = mapped(path)
    records, found = experts.records, native.expert_map(experts, mx.array([2, 1]))
    del experts
    gc.collect()
    assert found.tolist() == [2, 1]
    assert np.array_equal(bytes_of(records), packed[1])
    row = records[3]
    del records
    assert np.array_equal(bytes_of(row), packed[1][3])
    assert len(list(mappings(path))) <= 1
    del row, found
    gc.collect()
    mx.synchronize(mx.cpu)
    assert list(mappings(path)) == []

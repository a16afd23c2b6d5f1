"""The plain readers of memory and disk read what they should, all of it, and say when they cannot."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import probe
from baseline.ceilings import DiskCeiling, MemoryCeiling


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    with probe.library(tmp_path_factory.mktemp("probe")) as path:
        yield path


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 300_000), min_size=1, max_size=5), threads=st.integers(1, 4))
def test_every_word_is_read_once(library, sizes, threads):
    arrays = [np.random.default_rng(size).integers(0, 2**64, size, np.uint64) for size in sizes]
    ceiling = MemoryCeiling(library, arrays, threads)
    for _ in range(2):
        assert ceiling.gbps() > 0
        with np.errstate(over="ignore"):
            wanted = np.concatenate(arrays).sum()
        assert ceiling.sum[0] == wanted


@pytest.mark.parametrize("size", [4096, 1 << 20])
def test_the_disk_is_read_into_the_buffers(library, tmp_path, size):
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        ceiling = DiskCeiling(library, descriptor, size, size)
        assert ceiling.gbps(1, 1) > 0
        assert ceiling.memory[:size] == content
    finally:
        os.close(descriptor)


def test_a_file_that_ends_early_is_an_error(library, tmp_path):
    (tmp_path / "file").write_bytes(bytes(10_000))
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Input/output"):
            DiskCeiling(library, descriptor, 1 << 20, 4096).gbps(100, 4)
    finally:
        os.close(descriptor)

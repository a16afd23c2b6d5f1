"""The primitive `expert_read`: records, errors, odd disks, and the buffers that are read into."""

import itertools
import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline import native
from tests.expert_files import EXPERTS, METHODS, STRIDE, read


@settings(max_examples=60)
@given(
    experts=st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=12),
    threads=st.integers(1, 9),
    reads=st.integers(1, 5),
    direct=st.booleans(),
    uring=st.sampled_from(METHODS),
)
def test_reads_the_chosen_records(packed, experts, threads, reads, direct, uring):
    path, records = packed
    native.reserve_threads(threads)
    (got,) = read(path, experts, direct=direct, threads=threads, reads_per_expert=reads, uring=uring)
    assert np.array_equal(np.array(got).view(np.uint8), records[experts])


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.int64])
def test_indices_of_any_integer_type_and_shape(packed, dtype):
    path, records = packed
    indices = mx.array([[5, 0], [2, 3]]).astype(dtype).T  # not contiguous
    (got,) = read(path, indices)
    assert np.array_equal(np.array(got).view(np.uint8), records[[5, 2, 0, 3]])


@pytest.mark.parametrize("count", [1, 3])
def test_segments_are_views_of_the_records(packed, count):
    path, records = packed
    experts = [4, 1, 2][:count]
    _, weight, scales = read(path, experts, segments=[(mx.uint32, [3, 5], 64), (mx.bfloat16, [7], 4098)])
    assert weight.shape == (count, 3, 5) and scales.shape == (count, 7)
    want = records[experts, 64 : 64 + 60].copy().view(np.uint32).reshape(count, 3, 5)
    assert np.array_equal(np.array(weight), want)
    assert np.array_equal(np.array(scales.view(mx.uint16)), records[experts, 4098:4112].copy().view(np.uint16))


@pytest.mark.parametrize("segment", [(mx.uint32, [1], 2), (mx.uint32, [2049], 0), (mx.uint32, [1], -4)])
def test_a_segment_that_leaves_its_record_is_refused(packed, segment):
    with pytest.raises(ValueError, match="does not fit a record of 8192 bytes"):
        read(packed[0], [0], segments=[segment])


@pytest.mark.parametrize("expert", [EXPERTS, -1, 2**30])
@pytest.mark.parametrize("uring", METHODS)
def test_an_expert_that_does_not_exist_is_an_error_and_no_garbage(packed, expert, uring):
    with pytest.raises(RuntimeError, match=rf"layer_07.bin: layer 7, expert {expert}: no such expert"):
        read(packed[0], [0, expert], uring=uring)


# Few examples that fail: MLX 0.32.4 hangs after a hundred or so evaluations that did, in one process.
@pytest.mark.parametrize("size, reads", [(0, 1), (1, 2), (STRIDE * 2 + 5000, 1), (STRIDE * 2 + 5000, 2)])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("uring", METHODS)
def test_a_cut_file_names_file_layer_and_expert(packed, tmp_path, size, reads, direct, uring):
    path = tmp_path / "cut.bin"
    path.write_bytes(packed[0].read_bytes()[:size])
    whole = [] if size < STRIDE else [0, 1]
    with pytest.raises(RuntimeError, match=r"cut.bin: layer 7, expert 2: the file ends \d+ bytes too early"):
        read(path, [*whole, 2], direct=direct, reads_per_expert=reads, uring=uring)


def test_no_indices_are_refused(packed):
    with pytest.raises(ValueError, match="indices name no expert"):
        read(packed[0], mx.zeros(0, mx.int32))


def test_an_error_does_not_poison_later_reads(packed):
    with pytest.raises(RuntimeError):
        read(packed[0], [99])
    assert np.array_equal(np.array(read(packed[0], [3])[0]).view(np.uint8), packed[1][[3]])


@pytest.mark.parametrize("uring", METHODS)
def test_no_read_of_a_failed_call_writes_into_a_buffer_that_has_gone_on(packed, tmp_path, uring):
    path = tmp_path / "cut.bin"
    path.write_bytes(packed[0].read_bytes()[: 3 * STRIDE])
    for expert in range(8):
        with pytest.raises(RuntimeError):
            read(path, [5, *[0] * 40], direct=True, reads_per_expert=2, uring=uring)
        experts = [expert % EXPERTS] * 41  # as many, so that it gets the same buffer
        (got,) = read(packed[0], experts, direct=True, reads_per_expert=2, uring=uring)
        assert np.array_equal(np.array(got).view(np.uint8), packed[1][experts])


@pytest.mark.parametrize("uring", METHODS)
def test_a_folder_in_place_of_a_file_is_an_io_error(tmp_path, uring):
    with pytest.raises(RuntimeError, match="layer 7, expert 0: Is a directory"):
        read(tmp_path, [0], uring=uring)


@pytest.mark.skipif(native.uring_available(), reason="io_uring is there")
def test_io_uring_is_refused_where_there_is_none(packed):
    with pytest.raises(ValueError, match="io_uring is not available"):
        read(packed[0], [0], uring=True)


def test_a_missing_file_is_named():
    with pytest.raises(RuntimeError, match=r"no/such/layer.bin: cannot open: No such file"):
        native.ExpertFile("no/such/layer.bin", 0, 1, 4096, False)


@pytest.mark.parametrize("experts, stride", [(0, 4096), (1, 0), (1, 1000)])
def test_a_stride_that_is_no_multiple_of_a_page_is_refused(packed, experts, stride):
    with pytest.raises(ValueError, match="multiple of 4096"):
        native.ExpertFile(str(packed[0]), 0, experts, stride, False)


SHORT_READS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/types.h>
/* A disk that gives 1000 bytes at a time, and is interrupted at every third call. */
ssize_t pread64(int fd, void *to, size_t n, off_t at) {
  static _Thread_local int calls;
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) real = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
  if (++calls % 3 == 0) { errno = EINTR; return -1; }
  if (getenv("READ_ERROR") && at > 9000) { errno = EIO; return -1; }
  return real(fd, to, n > 1000 ? 1000 : n, at);
}
ssize_t pread(int fd, void *to, size_t n, off_t at) { return pread64(fd, to, n, at); }
#if __has_include(<liburing.h>)
#include <liburing.h>
/* The same through io_uring. RING_BROKEN: after the first read the kernel takes no more. */
int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait) {
  static _Thread_local int calls;
  static int (*real)(struct io_uring *, unsigned);
  void *library = dlopen("liburing.so.2", RTLD_NOW);
  if (!real) real = (int (*)(struct io_uring *, unsigned))dlsym(library, "io_uring_submit_and_wait");
  if (++calls % 3 == 0) return -EINTR;
  if (getenv("RING_BROKEN")) {
    unsigned tail = ring->sq.sqe_tail;
    ring->sq.sqe_tail = ring->sq.sqe_head + 1;
    int submitted = calls == 1 ? real(ring, 0) : -EPERM;
    ring->sq.sqe_tail = tail;
    return submitted;
  }
  for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; ++i) {
    struct io_uring_sqe *entry = &ring->sq.sqes[i & *ring->sq.kring_mask];
    if (entry->len > 1000) entry->len = 1000;
    if (getenv("READ_ERROR") && entry->off > 9000) entry->opcode = 255;
  }
  return real(ring, wait);
}
#endif
"""

READER = """
import sys, mlx.core as mx, numpy as np
from baseline import native
mx.set_default_device(mx.cpu)
file = native.ExpertFile(sys.argv[1], 7, 6, 8192, False)
(got,) = native.expert_read(file, mx.array([5, 0, 2]), threads=2, uring=sys.argv[2] == "True")
mx.eval(got)
sys.stdout.buffer.write(np.array(got).tobytes())
sys.exit(0 if native.counters()["reads"] >= 27 else 9)
"""


@pytest.fixture(scope="module")
def slow_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD is Linux's")
    folder = tmp_path_factory.mktemp("preload")
    (folder / "disk.c").write_text(SHORT_READS)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "disk.so", folder / "disk.c", "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(folder / "disk.so")}


@pytest.mark.parametrize("uring", METHODS)
def test_short_reads_are_continued_and_interrupts_retried(packed, slow_disk, uring):
    done = subprocess.run([sys.executable, "-c", READER, packed[0], str(uring)], env=slow_disk, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == packed[1][[5, 0, 2]].tobytes()


@pytest.mark.parametrize("uring", METHODS)
def test_an_io_error_of_the_disk_is_a_python_exception(packed, slow_disk, uring):
    env = {**slow_disk, "READ_ERROR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER, packed[0], str(uring)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"layer 7, expert 5: {'Invalid argument' if uring else 'Input/output error'}" in done.stderr


@pytest.mark.skipif(True not in METHODS, reason="no io_uring")
def test_a_ring_that_the_kernel_refuses_midway_is_an_error(packed, slow_disk):
    env = {**slow_disk, "RING_BROKEN": "1"}
    done = subprocess.run([sys.executable, "-c", READER, packed[0], "True"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "expert_read: " in done.stderr and "Operation not permitted" in done.stderr


def address(array: mx.array) -> int:
    return np.array(array, copy=False).ctypes.data


@settings(max_examples=20)
@given(experts=st.lists(st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=300), min_size=1, max_size=5))
def test_live_buffers_are_aligned_to_huge_pages_and_never_shared(packed, experts):
    held = []
    for chosen in experts:
        records, view = read(packed[0], chosen, segments=[(mx.uint32, [STRIDE // 4], 0)])
        assert address(records) % (2 << 20) == 0
        held.append(view)  # a view alone keeps its buffer
        del records
    for chosen, view in zip(experts, held, strict=True):
        assert np.array_equal(np.array(view).view(np.uint8), packed[1][chosen])
    spans = sorted((address(view), view.nbytes) for view in held)
    assert all(begin + size <= after for (begin, size), (after, _) in itertools.pairwise(spans))


def test_a_buffer_that_nobody_holds_is_used_again(packed):
    read(packed[0], [0, 1, 2])
    before = native.counters()["buffers"]
    for _ in range(50):
        read(packed[0], [0, 1, 2])
        read(packed[0], [3, 4])
    # One a size, and one that the stream's thread may not have given back yet when the next is taken.
    assert native.counters()["buffers"] - before <= 2


def test_a_buffer_that_is_being_read_into_waits_for_the_read(packed):
    file = native.ExpertFile(str(packed[0]), 7, EXPERTS, STRIDE, True)
    streams = [mx.new_stream(mx.cpu) for _ in range(2)]
    for expert in range(50):
        (dropped,) = native.expert_read(file, mx.array([expert % 5] * 64), threads=1, stream=streams[0])
        mx.async_eval(dropped)
        del dropped
        (got,) = native.expert_read(file, mx.array([5] * 64), threads=1, stream=streams[1])
        assert np.array_equal(np.array(got).view(np.uint8), packed[1][[5] * 64])


def test_idle_buffers_stay_within_their_limit(packed):
    native.limit_buffers(4 << 20)
    try:
        held = [read(packed[0], [0] * 300)[0] for _ in range(4)]
        assert native.counters()["buffer_bytes"] >= 4 * 300 * STRIDE
        assert all(np.array_equal(np.array(a).view(np.uint8), packed[1][[0] * 300]) for a in held)
        held.clear()
        mx.synchronize(mx.cpu)
        assert native.counters()["buffer_bytes"] <= 4 << 20
    finally:
        native.limit_buffers(256 << 20)

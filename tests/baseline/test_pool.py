"""The threads that both primitives share."""

import threading
from pathlib import Path

import mlx.core as mx
import numpy as np

from baseline import native
from tests.expert_files import EXPERTS, METHODS, STRIDE, read


def test_no_thread_is_started_by_a_call(packed, library):
    native.reserve_threads(8)
    kernel = native.CpuKernel(library, "add", 8)
    a = mx.ones(64)

    def call() -> None:
        for uring in METHODS:
            read(packed[0], [0, 1, 2, 3], direct=uring, threads=16, reads_per_expert=2, uring=uring)
        mx.eval(kernel([a, a], [(64,), (8,)], [mx.float32, mx.int32], [64]))

    call()  # MLX starts its stream's thread at first use
    before, pool = native_threads(), native.pool_size()
    for _ in range(50):
        call()
    assert native_threads() == before and native.pool_size() == pool


def native_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def test_jobs_of_several_callers_share_the_pool(packed):
    native.reserve_threads(4)
    failures: list[str] = []

    def reader(expert: int) -> None:
        stream = mx.new_stream(mx.cpu)
        file = native.ExpertFile(str(packed[0]), 7, EXPERTS, STRIDE, False)
        for _ in range(100):
            (got,) = native.expert_read(file, mx.array([expert] * 4), threads=4, stream=stream)
            if not np.array_equal(np.array(got).view(np.uint8), packed[1][[expert] * 4]):
                failures.append(f"expert {expert}")

    threads = [threading.Thread(target=reader, args=(e,)) for e in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

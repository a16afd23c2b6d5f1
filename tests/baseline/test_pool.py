"""The threads that both primitives share."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
        mx.eval(kernel([a, a], [(64,), (kernel.parts,)], [mx.float32, mx.int32], [64]))

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


# Microseconds: an idle worker looks for work for 200 before it parks.
TASKS = (0, 20, 150, 190, 210, 400, 1500)
PAUSES = (0, 20, 190, 210, 1000)


def spin(kernel: native.CpuKernel, x: np.ndarray, microseconds: int) -> tuple[np.ndarray, np.ndarray]:
    """What each task computed, and the thread that ran it."""
    y, who = np.full_like(x, np.nan), np.zeros(len(x), np.int32)
    kernel.run([x.ctypes.data], [y.ctypes.data, who.ctypes.data], [microseconds])
    return y, who


def test_runs_of_several_callers_at_once_are_all_right(library):
    native.reserve_threads(4)

    def caller(seed: int) -> int:
        """The most threads that one of its runs had."""
        random, most = np.random.default_rng(seed), 0
        kernel = native.CpuKernel(library, "spin", 2 + seed)
        for _ in range(60):
            x = random.standard_normal(kernel.parts).astype(np.float32)
            y, who = spin(kernel, x, int(random.choice(TASKS)))
            assert np.array_equal(y, 2 * x + 1)
            most = max(most, len({*who.tolist()}))
            time.sleep(random.choice(PAUSES) * 1e-6)
        return most

    with ThreadPoolExecutor(4) as callers:
        assert max(callers.map(caller, range(4))) > 1


def test_idle_workers_use_no_cpu(library):
    native.reserve_threads(4)
    kernel = native.CpuKernel(library, "spin", 4)
    x = np.ones(kernel.parts, np.float32)
    for microseconds in TASKS:
        spin(kernel, x, microseconds)
    time.sleep(0.05)  # far longer than they look for work
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05

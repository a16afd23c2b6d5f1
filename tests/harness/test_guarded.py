import ctypes
import faulthandler
import mmap
import os
import signal

import numpy as np
import pytest

from harness.guarded import POISON, GuardedBuffer


@pytest.mark.parametrize("nbytes", [0, 1, 4, 4095, 4096, 4097, 100_000])
def test_all_poison_and_the_size_asked_for(nbytes):
    buffer = GuardedBuffer(nbytes)
    assert buffer.data.nbytes == nbytes and (buffer.data == POISON).all() and buffer.intact


def test_poison_is_not_a_number():
    data = GuardedBuffer(16).data
    assert np.isnan(data.view(np.float32)).all() and np.isnan(data.view(np.float16)).all()


def test_holds_a_copy():
    array = np.arange(7, dtype=np.int32)
    buffer = GuardedBuffer.holding(array)
    assert (buffer.data.view(np.int32) == array).all()
    buffer.data[:] = 0
    assert array[-1] == 6


def test_a_write_in_front_shows():
    buffer = GuardedBuffer(12)
    ctypes.memset(buffer.address - 1, 0, 1)
    assert not buffer.intact


@pytest.mark.parametrize("offset", [12, -mmap.PAGESIZE + 11])
def test_touching_a_guard_kills(offset):
    buffer = GuardedBuffer(12)
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # or it would print the crash
        ctypes.string_at(buffer.address + offset, 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSEGV, signal.SIGBUS)

"""What this machine's memory and disk can give: the two figures that bound a streaming engine."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from baseline.elements import Array
from baseline.errors import UsageError
from baseline.targets import compiler, cpu
from baseline.targets.compiler import BuildError

MIB = 1 << 20
HUGE_PAGE = 2 * MIB
SOURCE = Path(__file__).with_name("probe.cpp")
MEMORY_ROUNDS, MEMORY_SECONDS = 20, 0.05  # short rounds: one without a disturbance is enough

O_DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has F_NOCACHE instead
READ_BYTES = tuple(4096 * 4**power for power in range(7))  # 4 KiB to 16 MiB
READ_SECONDS = 0.4  # for each size
READ_THREADS = 8
FILE_BYTES, LEAST_BYTES = 512 * MIB, 64 * MIB
WRITE_SECONDS = 3.0  # a slow disk gets a smaller file
FREE_BYTES = 2 << 30  # a disk with less is left alone


@dataclass(frozen=True)
class MemoryRead:
    """`gbps` (1e9 bytes a second) is None where it could not be measured; `reason` says why."""

    gbps: float | None
    threads: int
    buffer_bytes: int
    reason: str = ""


def memory_read(folder: Path) -> MemoryRead:
    """The read bandwidth of the memory, by a C++ program that is built in a folder below `folder`.

    Method: one thread a core, over a buffer of 512 MiB or four times the last-level cache if that is more (but no more
    than an eighth of the memory), each page of it written before. Each thread adds up the next block of 1 MiB
    with vector loads until 50 ms are over; bytes over time, the best of 20 rounds. It is what the cores get: a GPU
    that shares the memory may get more.
    """
    threads, buffer = cores(), _buffer_bytes()
    try:
        rate = _read_bandwidth(folder, buffer, threads)
    except (BuildError, UsageError, OSError) as error:
        return MemoryRead(None, threads, buffer, first_line(error))
    if not rate:
        return MemoryRead(None, threads, buffer, f"no room for a buffer of {buffer / MIB:.0f} MiB")
    return MemoryRead(rate / 1e9, threads, buffer)


def gpu_gbps() -> float:
    """What the memory of MLX's GPU gives, in 1e9 bytes a second, read and written: the best of several negations of an
    array of 512 MiB. RuntimeError where there is no GPU, or no room."""
    x = mx.full((512 * MIB // 4,), 1.0, stream=mx.gpu)
    mx.eval(x)
    rate = 2 * x.nbytes / min(_negation_s(x) for _ in range(MEMORY_ROUNDS))
    del x
    mx.clear_cache()  # the memory is the children's
    return rate / 1e9


def _negation_s(x: mx.array) -> float:
    negated = mx.negative(x, stream=mx.gpu)
    started = time.perf_counter()
    mx.eval(negated)
    return time.perf_counter() - started


@contextmanager
def library(folder: Path) -> Iterator[Path]:
    """The library of probe.cpp, built in a folder below `folder`; once loaded it works without its file.

    Raises BuildError and UsageError as every build.
    """
    tools = compiler.toolchain((*cpu.FLAGS, "-pthread"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as scratch:
        path = Path(scratch, "probe.so")
        command = [*tools.command, *tools.flags, "-shared"]
        text = SOURCE.read_text()
        compiler.compile_into(tools, path, text, lambda unit, out: [[*command, str(unit), "-o", str(out)]])
        yield path


def _read_bandwidth(folder: Path, buffer: int, threads: int) -> float:
    with library(folder) as path:
        function = ctypes.CDLL(str(path)).read_bandwidth
    function.restype = ctypes.c_double
    function.argtypes = (ctypes.c_size_t, ctypes.c_int, ctypes.c_double, ctypes.c_int)
    return float(function(buffer, threads, MEMORY_SECONDS, MEMORY_ROUNDS))


def cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _buffer_bytes() -> int:
    return max(min(max(512 * MIB, 4 * last_level_cache()), memory_bytes() // 8), MIB)


def last_level_cache() -> int:
    """Bytes of all L3 caches together; 0 where the kernel does not say."""
    found = {}
    for cache in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index3"):
        try:
            size = (cache / "size").read_text().strip()
            found[(cache / "shared_cpu_list").read_text()] = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return sum(found.values())


# ---- disk ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizeRead:
    """The rate at one read size, in 1e9 bytes a second."""

    bytes: int
    gbps: float


@dataclass(frozen=True)
class DiskRead:
    """`reads` is None where the disk could not be measured; `reason` says why. `cache` is how the page cache was
    kept out: O_DIRECT, F_NOCACHE, or DONTNEED (read through it, and evicted before each round)."""

    folder: str
    free_bytes: int | None
    cache: str | None = None
    threads: int = READ_THREADS
    file_bytes: int = 0
    reads: tuple[SizeRead, ...] | None = None
    reason: str = ""


def disk_read(folder: Path, on_size: Callable[[int], None] = lambda size: None) -> DiskRead:
    """Read rates of the disk under `folder` (made if missing) at READ_BYTES; `on_size` hears of each size.

    Method: READ_THREADS threads pread at random multiples of the size, each block once a round, for 0.4 s a size,
    past the page cache. The file of at most 512 MiB of random bytes has no name, so that nothing is left whatever ends
    the process. Reads are started from Python, at some 2 microseconds each.
    """
    free = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < FREE_BYTES:
            return DiskRead(str(folder), free, reason=f"only {free / 1e9:.1f} GB free: it takes 2 GiB")
        with _scratch(folder) as scratch:
            reads = tuple(SizeRead(size, _rate(scratch, size, on_size)) for size in READ_BYTES)
    except OSError as error:
        return DiskRead(str(folder), free, reason=f"{error.strerror} ({error.filename or folder})")
    return DiskRead(str(folder), free, scratch.cache, READ_THREADS, scratch.nbytes, reads)


@dataclass(frozen=True)
class _Scratch:
    fd: int
    nbytes: int
    cache: str


@contextmanager
def _scratch(folder: Path) -> Iterator[_Scratch]:
    """A file of random bytes, without a name, down on the disk of `folder`; reads go past the page cache."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        fd = file.fileno()
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)  # before the first write: it does not evict what is cached
            yield _Scratch(fd, fill(fd), "F_NOCACHE")
        else:
            nbytes = fill(fd)
            yield _Scratch(fd, nbytes, "O_DIRECT" if _read_directly(fd) else "DONTNEED")


def fill(fd: int) -> int:
    """Write FILE_BYTES of random data, or less on a slow disk, down to the disk. The bytes written."""
    random_bytes, start, nbytes = np.random.default_rng(), time.perf_counter(), 0
    while nbytes < FILE_BYTES and (nbytes < LEAST_BYTES or time.perf_counter() - start < WRITE_SECONDS):
        chunk = memoryview(random_bytes.bytes(READ_BYTES[-1]))
        while chunk:
            chunk = chunk[os.write(fd, chunk) :]
        os.fsync(fd)
        nbytes += READ_BYTES[-1]
    return nbytes


def _read_directly(fd: int) -> bool:
    """Set O_DIRECT, and see that a read works. False, and `fd` as it was, where the file system refuses either."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | O_DIRECT)
        return os.preadv(fd, [read_buffer(READ_BYTES[0])], 0) == READ_BYTES[0]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        return False


def _rate(scratch: _Scratch, size: int, on_size: Callable[[int], None]) -> float:
    """1e9 bytes a second at one size, over as many rounds as READ_SECONDS has room for."""
    on_size(size)
    buffers = [read_buffer(size) for _ in range(READ_THREADS)]
    nbytes, seconds = 0, 0.0
    while seconds < READ_SECONDS:
        if scratch.cache == "DONTNEED":
            _evict(scratch.fd)
        offsets = [block * size for block in range(scratch.nbytes // size)]
        random.shuffle(offsets)
        start = time.perf_counter()
        nbytes += _round(scratch.fd, buffers, offsets, start + READ_SECONDS - seconds)
        seconds += time.perf_counter() - start
    return nbytes / seconds / 1e9


def _evict(fd: int) -> None:
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_buffer(size: int) -> memoryview:
    """At a multiple of 2 MiB, on huge pages where the system gives them: direct reads are faster into those. It is
    written, so that no read pays for its pages."""
    pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has none
    with suppress(AttributeError, OSError):  # macOS, and a kernel built without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(pages)) % HUGE_PAGE
    buffer = memoryview(pages)[start : start + size]
    buffer[:] = bytes(size)
    return buffer


def huge_copy(array: Array) -> Array:
    """A copy as `read_buffer` places it, or anywhere if it is smaller than a huge page."""
    if array.nbytes < HUGE_PAGE:
        return array.copy()
    copy = np.frombuffer(read_buffer(array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _round(fd: int, buffers: Sequence[memoryview], offsets: Sequence[int], end: float) -> int:
    """Bytes that one thread a buffer reads until `end`, or until all offsets are read: the threads share them."""
    remaining, lock = iter(offsets), threading.Lock()

    def read(buffer: memoryview) -> int:
        nbytes = 0
        while time.perf_counter() < end:
            with lock:
                offset = next(remaining, None)
            if offset is None:
                break
            nbytes += os.preadv(fd, [buffer], offset)
        return nbytes

    with ThreadPoolExecutor(len(buffers)) as pool:
        return sum(pool.map(read, buffers))


def first_line(error: Exception) -> str:
    """An error's message in one line; of a compiler's output, the first line that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error" in line), lines[0])

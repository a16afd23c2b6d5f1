"""Reads of experts from a file made for it, past the page cache, beside what a direct-I/O probe gets from that file."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np

from baseline import native, probe
from baseline.ceilings import DiskCeiling
from baseline.engine import IoPolicy
from harness.bench.figures import Arm, Figure, Row, Target, interleave, paired

TABLE, UNIT = "reads", "GB/s"
READ, PROBE = "expert_read", "probe"
SHIPPED = 7_077_888  # an expert of the 397B model at 4 bits: 6.75 MiB
SIZES = (SHIPPED, *(1 << power for power in range(14, 25)))  # and 16 KiB to 16 MiB
EXPERTS = 4  # that one call reads at least: a token's at K = 4
CALL_BYTES = EXPERTS * SHIPPED  # that one call reads at least
LEAST = 0.95


def measure(folder: Path, library: Path, io: IoPolicy, rounds: int, on_size: Callable[[str], None]) -> Iterator[Row]:
    """Rows of each size. `library` is `baseline.probe.library`'s; the file lies in `folder` and has no name.

    They are direct whatever `io` says of the cache. A disk that cannot be measured is a row that says why.
    """
    io = replace(io, cache="direct")
    native.reserve_threads(io.threads)
    try:
        with expert_files(folder, SIZES) as (descriptor, nbytes, files):
            for size in SIZES:
                on_size(size_text(size))
                ceiling = DiskCeiling(library, descriptor, nbytes, size)
                yield from measure_size(files[size], ceiling, io, rounds)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        yield Row(TABLE, "all sizes", READ, UNIT, note=f"{folder}: {reason}")


def measure_size(file: native.ExpertFile, ceiling: DiskCeiling, io: IoPolicy, rounds: int) -> Iterator[Row]:
    """Rows of one size: a call reads as many random experts as make CALL_BYTES, and waits for them, as a layer does.

    The probe is that of the depth which gave most.
    """
    size, name = ceiling.size, size_text(ceiling.size)
    count = max(EXPERTS, CALL_BYTES // size)
    random = np.random.default_rng()

    def read() -> float:
        chosen = mx.array(random.permutation(ceiling.blocks)[:count].astype(np.int32))
        mx.eval(chosen)
        start = time.perf_counter()
        read_experts(file, chosen, io)
        return float(len(chosen) * size / (time.perf_counter() - start) / 1e9)

    probes = {f"{depth} in flight": partial(ceiling.gbps, max(count, depth), depth) for depth in ceiling.depths}
    arms: dict[str, Arm] = {READ: read, **probes}
    samples = interleave(arms, rounds)
    depth = max(probes, key=lambda depth: np.median(samples[depth]))
    probed = samples[depth]
    ratios = {PROBE: paired(samples[READ], probed)}
    yield Row(TABLE, name, READ, UNIT, Figure.of(samples[READ]), ratios, (Target(PROBE, LEAST),), f"{count} a call")
    yield Row(TABLE, name, PROBE, UNIT, Figure.of(probed), note=depth)


def size_text(nbytes: int) -> str:
    """As in 16 KiB, or 6.75 MiB."""
    return f"{nbytes >> 10} KiB" if nbytes < 1 << 20 else f"{nbytes / (1 << 20):g} MiB"


def read_experts(file: native.ExpertFile, chosen: mx.array, io: IoPolicy) -> mx.array:
    """The records [k, stride / 4] of the experts that `chosen` [k] names, read as `io` says; evaluated."""
    uring = io.uring(native.uring_available())
    (records,) = native.expert_read(file, chosen, [], io.threads, io.reads_per_expert, uring)
    mx.eval(records)
    return records


@contextmanager
def expert_files(folder: Path, sizes: Sequence[int]) -> Iterator[tuple[int, int, dict[int, native.ExpertFile]]]:
    """One file of random bytes, open for direct reads: its descriptor, its bytes, and an ExpertFile of each size.

    It has lost its name by the time it is used, so that nothing is left whatever ends the process. OSError and
    RuntimeError where the disk is full, or does not take direct reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="bench-", buffering=0) as file:
        nbytes = probe.fill(file.fileno())
        descriptor = os.open(file.name, os.O_RDONLY | probe.O_DIRECT)
        files = {size: native.ExpertFile(file.name, 0, nbytes // size, size, direct=True) for size in sizes}
    try:
        yield descriptor, nbytes, files
    finally:
        os.close(descriptor)

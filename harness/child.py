"""The process in which a candidate's code runs: `python -m harness.child JOB.json`.

It only runs and times; it holds no answer and judges nothing. Each job kind is one function from the job to the
JSON that the parent gets back; arrays go through .npz files. Only `engine` imports mlx-lm, so the others start fast.
"""

import ctypes
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from baseline import native
from harness.guarded import GuardedBuffer

Job = Mapping[str, Any]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ROTATED_BYTES = 96 << 20  # more than the last-level cache of the machines this is for
MIN_ROTATIONS, MAX_ROTATIONS = 4, 64


def array_hash(array: NDArray[np.generic]) -> str:
    """The xxh3_128 of an array's bytes, in hex."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def begin(job: Job) -> None:
    """Says that the candidate's code runs from here on: what fails later may be its doing."""
    Path(job["started"]).touch()


def check(job: Job) -> dict[str, Any]:
    """Calls entry points on given inputs, each buffer guarded, outputs poisoned.

    `calls` name a library, a symbol, dims, the inputs' keys in the file `inputs`, and the outputs' dtypes and shapes.
    The outputs go to the file `outputs` as <call>.<name>; back come the hashes of the inputs after each call and
    whether anything was written in front of a buffer.
    """
    outputs: dict[str, NDArray[np.generic]] = {}
    reports = []
    with np.load(job["inputs"]) as arrays:
        begin(job)
        for number, call in enumerate(job["calls"]):
            kernel = native.CpuKernel(call["library"], call["symbol"], call["threads"])
            inputs = [GuardedBuffer.holding(arrays[key]) for key in call["inputs"]]
            blank = [np.empty(o["shape"], o["dtype"]) for o in call["outputs"]]
            results = [GuardedBuffer(array.nbytes) for array in blank]
            kernel.run([b.address for b in inputs], [b.address for b in results], call["dims"])
            for array, buffer, output in zip(blank, results, call["outputs"], strict=True):
                outputs[f"{number}.{output['name']}"] = buffer.data.view(array.dtype).reshape(array.shape).copy()
            hashes = [array_hash(buffer.data) for buffer in inputs]
            reports.append({"hashes": hashes, "intact": all(b.intact for b in (*inputs, *results))})
    np.savez(job["outputs"], allow_pickle=False, **outputs)
    return {"calls": reports}


def bench(job: Job) -> dict[str, Any]:
    """Times two arms in ABBA order, each repetition on the next of several copies of the inputs.

    Back come the seconds of each repetition by arm. The number of blocks is fixed before the first timed one, from how
    long a warm-up block took and `budget_s`, within `blocks` (least, most).
    """
    with np.load(job["inputs"]) as arrays:
        first = [arrays[key] for key in job["input_order"]]
    rotations = ROTATED_BYTES // max(sum(array.nbytes for array in first), 1) + 1
    rotations = min(max(rotations, MIN_ROTATIONS), MAX_ROTATIONS)
    copies = [[array.copy() for array in first] for _ in range(rotations)]
    results = [np.empty(o["shape"], o["dtype"]) for o in job["outputs"]]
    begin(job)
    kernels = {
        name: native.CpuKernel(arm["library"], arm["symbol"], arm["threads"]) for name, arm in job["arms"].items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in kernels}
    turn = 0

    def repeat(name: str) -> None:
        nonlocal turn
        inputs = copies[turn % rotations]
        turn += 1
        addresses = [array.ctypes.data for array in inputs], [array.ctypes.data for array in results]
        seconds[name] += kernels[name].run(*addresses, job["dims"])

    champion, candidate = kernels
    abba = (champion, candidate, candidate, champion)
    for name in abba:
        repeat(name)
    least, most = job["blocks"]
    warm_up_s = sum(map(sum, seconds.values()))
    for samples in seconds.values():
        samples.clear()
    for _ in range(min(max(int(job["budget_s"] / warm_up_s), least), most)):
        for name in abba:
            repeat(name)
        turn += 1  # so that no arm keeps to the same copies
    return {"seconds": seconds, "rotations": rotations}


def load_job(kind: str) -> Callable[[Job], dict[str, Any]]:
    """The function of a job kind, all that it imports imported."""
    if kind == "engine":
        import mlx.core as mx

        mx.set_default_device(mx.cpu)  # before mlx-lm takes the default device for its own stream
        from harness.engine_job import run

        return run
    return {"check": check, "bench": bench}[kind]


def main() -> None:
    """Runs the job in the file that the first argument names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent kills at the timeout; these end a child whose parent is gone, at once on Linux.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(int(job["timeout_s"]) + 5)
    run = load_job(job["kind"])
    payload = run(job)
    Path(job["result"]).write_text(json.dumps(payload))


if __name__ == "__main__":
    main()

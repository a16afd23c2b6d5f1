"""The process in which a candidate's code runs: `python -m harness.child JOB.json`.

It only runs and times; it holds no answer and judges nothing. Each job kind is one function from the job to the
JSON that the parent gets back; arrays go through .npz files. Only `engine` and `model` import mlx-lm: the others start
fast.
"""

import ctypes
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import xxhash
from numpy.typing import NDArray

from baseline.durable import code_hash
from baseline.elements import Array
from harness import launch
from harness.guarded import GuardedBuffer

Job = Mapping[str, Any]
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def array_hash(array: NDArray[np.generic]) -> str:
    """The xxh3_128 of an array's bytes, in hex."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def begin(job: Job) -> None:
    """Says that the candidate's code runs from here on: what fails later may be its doing."""
    Path(job["started"]).touch()


def check(job: Job) -> dict[str, Any]:
    """Calls kernels on given inputs, each buffer guarded, outputs poisoned.

    `calls` are what `harness.launch` loads, with the inputs' keys in the file `inputs`, and the outputs' dtypes and
    shapes. The outputs go to the file `outputs` as <call>.<name>; back come for each call the hashes of the inputs
    after it, whether anything was written in front of a buffer, and what a sanitizer found, which ends the calls.
    `code` are the hashes of the files that the kernels are loaded from, taken before any of their code runs.
    `refused` is what Apple's compiler, which is asked only here, says of a kernel that it does not take.
    """
    outputs: dict[str, Array] = {}
    reports: list[dict[str, Any]] = []
    code = {path: code_hash(Path(path)) for path in sorted({*map(launch.code_file, job["calls"])})}
    with np.load(job["inputs"]) as arrays:
        begin(job)
        for number, call in enumerate(job["calls"]):
            given = [arrays[key] for key in call["inputs"]]
            inputs = [GuardedBuffer.holding(array) for array in given]
            blank = [np.empty(o["shape"], o["dtype"]) for o in call["outputs"]]
            results = [GuardedBuffer(array.nbytes) for array in blank]
            try:
                found = launch.load(call).run(_shaped(inputs, given), _shaped(results, blank))
            except RuntimeError as error:
                if launch.REFUSED not in str(error):
                    raise
                return {"code": code, "calls": reports, "refused": str(error)}
            for array, output in zip(_shaped(results, blank), call["outputs"], strict=True):
                outputs[f"{number}.{output['name']}"] = array.copy()
            hashes = [array_hash(buffer.data) for buffer in inputs]
            intact = all(b.intact for b in (*inputs, *results))
            reports.append({"hashes": hashes, "intact": intact, "findings": found})
            if found:
                break
    np.savez(job["outputs"], allow_pickle=False, **outputs)
    return {"code": code, "calls": reports}


def _shaped(buffers: Sequence[GuardedBuffer], arrays: Sequence[Array]) -> list[Array]:
    """What the buffers hold, in the shapes and dtypes of `arrays`."""
    return [b.data.view(a.dtype).reshape(a.shape) for b, a in zip(buffers, arrays, strict=True)]


def load_job(job: Job) -> Callable[[Job], dict[str, Any]]:
    """The function of a job's kind, all that it imports imported, MLX set to the job's device."""
    mx.set_default_device(getattr(mx, job["device"]))  # before mlx-lm takes the default device for its own stream
    match job["kind"]:
        case "check":
            return check
        case "bench":
            from harness.bench_job import run as bench

            return bench
        case "engine":
            from harness.engine_job import run as engine

            return engine
        case "model":
            from harness.engine_job import instances

            return instances
    raise ValueError(f"no job is called {job['kind']!r}")


def main() -> None:
    """Runs the job in the file that the first argument names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent kills at the timeout; these end a child whose parent is gone, at once on Linux.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(int(job["timeout_s"]) + 5)
    run = load_job(job)
    payload = run(job)
    Path(job["result"]).write_text(json.dumps(payload))


if __name__ == "__main__":
    main()

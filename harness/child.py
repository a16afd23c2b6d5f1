"""What runs a candidate's code, in the process that `harness.confined` starts.

It only runs and times; it holds no answer and judges nothing. Each job kind is one function from the job to the
JSON that the parent gets back; arrays come in .npz files and go in safetensors ones. Only `engine` and `prepare` import
mlx-lm: the others start fast.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

from baseline import confinement, native
from baseline.durable import code_hash
from baseline.elements import Array
from harness import launch
from harness.guarded import POISON, GuardedBuffer, array_hash

Job = Mapping[str, Any]
AGAIN = " again"
REPEATED_S = 0.1  # for the repeats of one call


def let_in(job: Job) -> None:
    """Tells the parent that what fails from here on may be the candidate's doing."""
    os.write(job["begun"], b"1")


def begin(job: Job, threads: int = 1) -> None:
    """The candidate's code runs from here on: what fails later may be its doing, and no thread or process is started.

    `threads`: those that its kernels run on.
    """
    for call in job.get("calls", ()):
        launch.announce(call)
    native.reserve_threads(threads)
    mx.eval(mx.zeros(1) + 1)  # MLX's own thread
    let_in(job)
    confinement.restrict_growth(confinement.Limits.from_json(job["limits"]))
    confinement.restrict_calls(job["calls_program"])


def check(job: Job) -> dict[str, Any]:
    """Calls kernels on given inputs, each buffer guarded, outputs poisoned.

    `calls` are what `harness.launch` loads, with the inputs' keys in the file `inputs`, and the outputs' dtypes and
    shapes. The outputs go to the file `outputs` as <call>.<name>; back come for each call the hashes of the inputs
    after it, whether anything was written in front of a buffer, and what a sanitizer found, which ends the calls.
    Where the same call again makes something else of its outputs, that is kept too, its names ending with AGAIN.
    `code` are the hashes of the files that the kernels are loaded from, taken before any of their code runs.
    `refused` is what a GPU's compiler, which is asked only here, says of a kernel that it does not take.
    """
    outputs: dict[str, Array] = {}
    reports: list[dict[str, Any]] = []
    code = {path: code_hash(Path(path)) for path in sorted({*map(launch.code_file, job["calls"])})}
    with np.load(job["inputs"]) as arrays:
        begin(job, max(call.get("threads", 1) for call in job["calls"]))
        for number, call in enumerate(job["calls"]):
            given = [arrays[key] for key in call["inputs"]]
            inputs = [GuardedBuffer.holding(array) for array in given]
            blank = [np.empty(o["shape"], o["dtype"]) for o in call["outputs"]]
            results = [GuardedBuffer(array.nbytes) for array in blank]
            try:
                kernel = launch.load(call)
                found = kernel.run(_shaped(inputs, given), _shaped(results, blank))
            except RuntimeError as error:
                if not any(said in str(error) for said in launch.REFUSED):
                    raise
                return {"code": code, "calls": reports, "refused": str(error)}
            first = [array.copy() for array in _shaped(results, blank)]
            other = _other(kernel, _shaped(inputs, given), _shaped(results, blank), first)
            for kept, suffix in ((first, ""), (other, AGAIN)):
                for array, output in zip(kept, call["outputs"] if kept else [], strict=True):
                    outputs[f"{number}.{output['name']}{suffix}"] = array
            hashes = [array_hash(buffer.data) for buffer in inputs]
            intact = all(b.intact for b in (*inputs, *results))
            reports.append({"hashes": hashes, "intact": intact, "findings": found})
            if found:
                break
    save_file(outputs, job["outputs"])
    return {"code": code, "calls": reports}


def _other(kernel: launch.Launch, inputs: list[Array], outputs: list[Array], first: list[Array]) -> list[Array]:
    """What the kernel makes of poisoned outputs when it is called again, and again; [] when it is always the same."""
    end = time.perf_counter() + REPEATED_S
    for _ in range(kernel.repeats - 1):
        for array in outputs:
            array.reshape(-1).view(np.uint8)[:] = POISON
        kernel.run(inputs, outputs)
        if any(array.tobytes() != before.tobytes() for array, before in zip(outputs, first, strict=True)):
            return [array.copy() for array in outputs]
        if time.perf_counter() > end:
            break
    return []


def _shaped(buffers: Sequence[GuardedBuffer], arrays: Sequence[Array]) -> list[Array]:
    """What the buffers hold, in the shapes and dtypes of `arrays`."""
    return [b.data.view(a.dtype).reshape(a.shape) for b, a in zip(buffers, arrays, strict=True)]


def load_job(job: Job) -> Callable[[Job], dict[str, Any]]:
    """The function of a job's kind, all that it imports imported, MLX set to the job's device."""
    mx.set_default_device(getattr(mx, job["device"]))  # before mlx-lm takes the default device for its own stream
    match job["kind"]:
        case "check":
            return check
        case "compile":
            from harness.compile_job import run as compile_all

            return compile_all
        case "contest":
            from harness.contest_job import run as contest

            return contest
        case "engine":
            from harness.engine_job import run as engine

            return engine
        case "prepare":
            from harness.prepare_job import run as prepare

            return prepare
    raise ValueError(f"no job is called {job['kind']!r}")


def main(job: Job) -> None:
    """Runs a job and writes what it gives to the file `result`."""
    run = load_job(job)
    payload = run(job)
    Path(job["result"]).write_text(json.dumps(payload, allow_nan=False))

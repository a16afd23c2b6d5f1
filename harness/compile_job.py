"""The child's `compile` job: MLX has NVRTC compile kernels, and launches none of them. See `harness.compiled`."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

from baseline import keeper
from baseline.contract import Case, load_contract
from baseline.targets.cuda import Kernel
from baseline.variant import Choice, parse_variant
from harness import launch
from harness.child import begin


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves what was made of each of `calls` in the file `outputs`, as bytes named <the call's number>/<file>. Where
    NVRTC does not take one, `refused` is what it says."""
    kept = Path(os.environ["TMPDIR"]) / "kept"
    begin(job)
    for call in job["calls"]:
        keeper.keep(kept / str(call["number"]))
        if said := refusal(call):
            return {"refused": said}
    save_file({name: np.frombuffer(content, np.uint8) for name, content in files(kept)}, job["outputs"])
    return {}


def refusal(call: Mapping[str, Any]) -> str:
    """What NVRTC says of a kernel that it does not take; '' of one that it compiled."""
    path = Path(call["path"])
    contract = load_contract(path.parent.parent)
    choice = Choice(parse_variant(path, contract), call["tunables"])
    case = Case(call["constants"], dict(zip(contract.dims, call["dims"], strict=True)))
    kernel = Kernel(choice, contract, case.constants, call["watermark"])
    # Of the inputs, the text depends on no more than types and number of dimensions.
    given = {
        t.name: mx.zeros((1,) * len(t.shape), getattr(mx, contract.element_type(t, case.constants)))
        for t in contract.inputs
    }
    mx.eval(given)
    try:
        mx.eval(kernel(given, case.dims))
    except RuntimeError as error:
        if keeper.SAID in str(error):
            return ""
        if any(said in str(error) for said in launch.REFUSED):
            return str(error)
        raise
    raise RuntimeError(f"{path.name} was launched: NVRTC was not asked for it here")


def files(kept: Path) -> Iterator[tuple[str, bytes]]:
    """The files two levels down in a folder, by name there."""
    for file in sorted(kept.glob("*/*")):
        yield str(file.relative_to(kept)), file.read_bytes()

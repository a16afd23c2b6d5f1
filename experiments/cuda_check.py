"""Every metal and cuda variant at every case of its contract against the float64 oracle, on a CUDA device.

Each variant runs in a process of its own (python -m experiments.cuda_check FILE): one that crashes or hangs
costs one row.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from baseline.contract import Case, Contract, load_contract
from baseline.elements import Array
from baseline.errors import UsageError
from baseline.reference import oracle
from baseline.samples import sample_inputs
from baseline.targets.compiler import BuildError
from baseline.targets.cuda import Kernel
from baseline.variant import Choice, parse_variant
from experiments.cuda_bench import first_error, say

KERNELS = Path(__file__).parents[1] / "kernels"
OPS = ("qmatvec", "expert_gate_up", "expert_down", "gated_delta_step")
CHECK_SECONDS = 150
WORKERS = 12
MULTIPLE = 4.0
"""A kernel's error may be this multiple of the plain kernel's, or of its output type's resolution if that is more."""

SANE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
"""No error may exceed this, whatever the plain kernel's is."""

RESOLUTION = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ROUNDS_FLOATS = "half_x"
"""The variant whose float32 cases must be judged wrong: it stages such an activation as half."""

PREFIX = "RESULT "


@dataclass(frozen=True)
class Check:
    """One variant at one case: the largest error over the largest output, or why there is none."""

    op: str
    target: str
    variant: str
    case: int
    error: float | None
    failure: str = ""

    @property
    def name(self) -> str:
        """op/target/variant."""
        return f"{self.op}/{self.target}/{self.variant}"


def check_all(files: Sequence[Path]) -> list[Check]:
    """Each file in a process of its own, several at a time."""
    say(f"checking {len(files)} variants")
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        return [check for found in pool.map(_check_apart, files) for check in found]


def _check_apart(path: Path) -> list[Check]:
    command = [sys.executable, "-m", "experiments.cuda_check", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS)
        output, ending = done.stdout, first_error(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ending = f"no end after {CHECK_SECONDS} s"
    lines = [line.removeprefix(PREFIX) for line in output.splitlines() if line.startswith(PREFIX)]
    checks = [Check(**json.loads(line)) for line in lines]
    op, target = path.parts[-3:-1]
    checks += [Check(op, target, path.stem, len(checks), None, ending)] if ending else []
    wrong = next((check.failure for check in checks if check.failure), "")
    say(f"  {op}/{target}/{path.stem}: {len(checks)} cases {wrong}")
    return checks


def check_here(path: Path) -> None:
    """In the process apart: print one line for each case that the variant supports."""
    contract = load_contract(path.parent.parent)
    op, target = path.parts[-3:-1]
    try:
        variant = parse_variant(path, contract)
        supported = [case for case in enumerate(_cases(contract)) if variant.supports_instance(case[1].constants)]
    except UsageError as error:
        print(PREFIX + json.dumps(asdict(Check(op, target, path.stem, 0, None, str(error)))), flush=True)
        return
    for i, case in supported:
        worst, failure = _error(Choice.defaults(variant), contract, case, i)
        print(PREFIX + json.dumps(asdict(Check(op, target, path.stem, i, worst, failure))), flush=True)


def _cases(contract: Contract) -> tuple[Case, ...]:
    return contract.check + contract.bench


def _error(choice: Choice, contract: Contract, case: Case, seed: int) -> tuple[float | None, str]:
    stored = sample_inputs(contract, case, np.random.default_rng(seed))
    wanted = oracle(contract.op, case.constants, stored)
    inputs = {t.name: _to_mlx(stored[t.name], contract.element_type(t, case.constants)) for t in contract.inputs}
    try:
        outputs = Kernel(choice, contract, case.constants)(inputs, case.dims)
        mx.eval(outputs)
    except (RuntimeError, ValueError, TypeError, BuildError, UsageError) as error:
        return None, first_error(str(error))
    errors = []
    for tensor, output in zip(contract.outputs, outputs, strict=True):
        found = np.array(output.astype(mx.float32)).astype(np.float64)
        errors.append(float(np.abs(found - wanted[tensor.name]).max() / np.abs(wanted[tensor.name]).max()))
    return max(errors), "" if np.isfinite(errors).all() else "not finite"


def _to_mlx(stored: Array, element: str) -> mx.array:
    array = mx.array(stored)
    return array.view(mx.bfloat16) if element == "bfloat16" else array


def judge(checks: Sequence[Check]) -> dict[str, str]:
    """By op/target/variant: `ok`, or the first case that is wrong and how."""
    plain = {(c.op, c.target, c.case): c.error for c in checks if c.variant == "plain"}
    contracts = {op: load_contract(KERNELS / op) for op in OPS}
    verdicts: dict[str, str] = {}
    for check in checks:
        name = check.name
        wrong = check.failure or _excess(
            check, plain.get((check.op, check.target, check.case)), _cases(contracts[check.op])[check.case]
        )
        if verdicts.setdefault(name, "ok") == "ok" and wrong:
            verdicts[name] = f"case {check.case}: {wrong}"
    return verdicts


def unexpected(verdicts: Mapping[str, str]) -> dict[str, str]:
    """Those that are wrong and should not be, or right and should not be."""
    return {name: verdict for name, verdict in verdicts.items() if (verdict == "ok") == name.endswith(ROUNDS_FLOATS)}


def _excess(check: Check, plain: float | None, case: Case) -> str:
    element = str(case.constants["T"])
    allowed = min(SANE[element], MULTIPLE * max(plain or 0.0, RESOLUTION[element]))
    assert check.error is not None
    return "" if check.error <= allowed else f"error {check.error:.2e} exceeds {allowed:.2e}"


if __name__ == "__main__":
    check_here(Path(sys.argv[1]))

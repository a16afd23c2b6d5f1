"""An A/A run of three kernels, for the tests of the keep rule: python -m experiments.record_noise FILE

Each kernel is timed against itself as a candidate is against the champion. One line a block: the kernel, and the
microseconds of a launch in the block's four repetitions in the order in which they ran: one arm, the other twice, the
first again. Which arm it was does not matter: they are equal. (The table in the tests was made when each block began
with the champion.)
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from baseline.contract import Case, load_contract
from baseline.variant import Choice, parse_variant
from harness.build import OpLibrary, build
from harness.contest import Contest, ContestPlan, bench_inputs
from harness.paths import data_folder
from harness.physics import Floor
from harness.settings import writable
from harness.targets import Cpu
from harness.verify import measure_noise

BLOCKS = 400
# From a launch of some tens of microseconds to one that reads more than a cache holds; other dims as in the contract.
KERNELS: Mapping[str, Mapping[str, int]] = {
    "qmatvec/plain": {"N": 512, "K": 512},
    "qmatvec/limbs": {},
    "gated_delta_step/fused": {},
}
HEADER = """# Noise of a shared two-core virtual machine with other work on it: each kernel against itself.
# Made by python -m experiments.record_noise; microseconds of a block's repetitions, in the order in which they ran.
kernel\tchampion\tcandidate\tcandidate again\tchampion again
"""


def main(file: Path) -> None:
    """Times each kernel against itself and writes the table."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for kernel in KERNELS for line in _lines(kernel, Path(folder))]
    file.write_text(HEADER + "\n".join(lines) + "\n")


def _lines(kernel: str, folder: Path) -> Iterator[str]:
    library = _library(kernel, folder)
    inputs = folder / f"{library.contract.op}.npy"
    bench_inputs(library, inputs)
    mine, home = (writable(folder / name) for name in ("candidate", "champion"))
    noise = measure_noise(library, 0, mine, 300.0).errors
    plan = ContestPlan(blocks=(BLOCKS, BLOCKS))
    benched = Contest(library, library, inputs, mine, home, 300.0, Floor(0.0, 0.0, 0), noise, plan=plan).run()
    for block, champion_first in enumerate(benched.champion_first):
        old, new = (arm[2 * block : 2 * block + 2] for arm in (benched.champion_s, benched.candidate_s))
        first, second = (old, new) if champion_first else (new, old)
        times = (first[0], *second, first[1])
        yield "\t".join([kernel, *(f"{1e6 * seconds:.5g}" for seconds in times)])


def _library(kernel: str, cache: Path) -> OpLibrary:
    """The kernel with its default tunables, built for its bench shape alone."""
    op, name = kernel.split("/")
    contract = load_contract(data_folder("kernels") / op)
    case = contract.bench[0]
    case = Case({**case.constants, **KERNELS[kernel]}, case.dims)
    contract = replace(contract, bench=(case,), check=contract.check[:1])
    variant = parse_variant(data_folder("kernels") / op / "cpu" / f"{name}.cpp")
    built, library = build(Choice.defaults(variant), contract, Cpu(), cache)
    if library is None:
        raise RuntimeError(f"{kernel}: {built.log}")
    return library


if __name__ == "__main__":
    main(Path(sys.argv[1]))

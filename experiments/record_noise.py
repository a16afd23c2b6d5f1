"""An A/A run of three kernels, for the tests of the keep rule: python -m experiments.record_noise FILE

Each kernel is timed against itself as a candidate is against the champion. One line a block: the kernel, and the
microseconds of the block's four repetitions in the order in which they ran: champion, candidate, candidate, champion.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from baseline.contract import Case, load_contract
from baseline.variant import Choice, parse_variant
from harness.build import OpLibrary, build
from harness.measure import BenchPlan, bench, bench_inputs
from harness.paths import data_folder
from harness.targets import Cpu

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
    inputs = folder / f"{library.contract.op}.npz"
    inputs.unlink(missing_ok=True)
    bench_inputs(library, inputs, seed=0)
    benched = bench(library, library, inputs, folder, 300.0, BenchPlan(blocks=(BLOCKS, BLOCKS)))
    old, new = benched.champion_s, benched.candidate_s
    for first in range(0, 2 * BLOCKS, 2):
        block = (old[first], new[first], new[first + 1], old[first + 1])
        yield "\t".join([kernel, *(f"{1e6 * seconds:.5g}" for seconds in block)])


def _library(kernel: str, cache: Path) -> OpLibrary:
    """The kernel with its default tunables, built for its bench shape alone."""
    op, name = kernel.split("/")
    contract = load_contract(data_folder("kernels") / op)
    case = contract.bench[0]
    case = Case({**case.constants, **KERNELS[kernel]}, case.dims)
    contract = replace(contract, bench=(case,), check=())
    variant = parse_variant(data_folder("kernels") / op / "cpu" / f"{name}.cpp")
    built, library = build(Choice.defaults(variant), contract, Cpu(), cache)
    if library is None:
        raise RuntimeError(f"{kernel}: {built.log}")
    return library


if __name__ == "__main__":
    main(Path(sys.argv[1]))

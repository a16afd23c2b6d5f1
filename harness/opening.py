"""What a search measures before its first candidate: how fast anything can be on this machine."""

import shutil
from dataclasses import replace
from pathlib import Path

from baseline.errors import CheckError
from baseline.variant import SUFFIXES, Choice, parse_variant
from harness.build import OpLibrary, build
from harness.contestant import Contestant
from harness.costs import Part, spent_on
from harness.draws import Draws
from harness.physics import Floor, floor

NOOP = """/*---
op: {op}
target: {target}
tunables: {{}}
launch: {launch}
hypothesis: nothing is faster than doing nothing
---*/
"""
GRID = "{grid: [32, 1, 1], threadgroup: [32, 1, 1]}"
HEADER = {  # target and launch, by backend
    "cpu": ("cpu", "{threads: 2}"),
    "metal": ("metal", GRID),
    "emulated": ("metal", GRID),
    "cuda": ("cuda", GRID),
}
NAME = "no-op"
LAUNCHES, ROUNDS, TIMEOUT_S = 200, 5, 60.0


@spent_on(Part.MACHINE)
def measure_floor(plain: OpLibrary, gbps: float | None, inputs: Path, folder: Path, cache: Path) -> Floor:
    """What no kernel of an op can be faster than: an empty one, timed as candidates are, and the memory at `gbps`.

    `plain` is any kernel of the op for the backend that is timed; None where the memory could not be measured.
    """
    library = _noop(plain, folder, cache)
    with Contestant({NAME: library}, inputs, folder, TIMEOUT_S) as empty:
        empty.ready()
        launches = min(LAUNCHES, empty.slots.count)
        draws, times = Draws(library.contract, inputs), []
        for _ in range(ROUNDS):
            draw = draws.draw(launches)
            empty.prepare(NAME, draws.activations(draw), draw.first)
            times.append(empty.run(NAME).seconds / launches)
        seconds = min(times)
    return floor(plain.contract, seconds, gbps)


def _noop(plain: OpLibrary, folder: Path, cache: Path) -> OpLibrary:
    contract, backend = replace(plain.contract, check=()), plain.backend  # it is timed at the bench shape alone
    target, launch = HEADER[backend.name]
    home = folder / "noop" / contract.op  # laid out as kernels are: a child finds the contract above the file
    source = home / target / f"noop{SUFFIXES[target]}"
    source.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plain.choice.variant.path.parents[1] / "contract.yaml", home / "contract.yaml")
    source.write_text(NOOP.format(op=contract.op, target=target, launch=launch))
    built, library = build(Choice.defaults(parse_variant(source, contract)), contract, backend, cache)
    if library is None:
        raise CheckError(f"a kernel of {contract.op} that does nothing does not build: {built.log}")
    return library

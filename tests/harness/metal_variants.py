"""Metal variants of `qmatvec` for tests, small enough to build in a moment: right ones, and ways to be wrong."""

from pathlib import Path

import yaml

from tests.harness.conftest import KERNELS

# One layer kind of the bundled model, so that the engine runs these kernels, and not many of them.
SHAPE = {"N": 8, "K": 256, "BITS": 4, "GROUP": 64, "T": "float32", "S": "float32", "m": 1}
CHECK = [{**SHAPE, "m": 3}, {**SHAPE, "K": 64, "GROUP": 32, "T": "float16", "S": "bfloat16"}]
HEADER = """/*---
op: qmatvec
target: metal
tunables: {{WIDTH: [4, 8]}}
launch: {{grid: [N, m, 1], threadgroup: [{width}, 1, 1]}}
supports: {{N: [8], BITS: [4]}}
hypothesis: {name}
---*/
"""
RIGHT = """
const uint n = thread_position_in_grid.x, token = thread_position_in_grid.y;
float total = 0;
for (int k = 0; k < K; ++k) {
    const uint q = w[n * (K / 8) + k / 8] >> (k % 8 * 4) & 15;
    const int group = n * (K / GROUP) + k / GROUP;
    total += float(x[token * K + k]) * (float(scales[group]) * float(q) + float(biases[group]));
}
y[token * N + n] = T(total);
"""
# The same four times over.
SLOW = RIGHT.replace("float total = 0;", "float total = 0;\nfor (int again = 0; again < 4; ++again) {\ntotal = 0;")
SLOW = SLOW.replace("y[token", "}\ny[token")
BAD = {
    "does_not_compile": "y[0] = no_such_name;",
    "out_of_bounds": RIGHT + "if (n == 0) y[m * N] = T(0);",
    "race": "threadgroup float last[1];" + RIGHT + "last[0] = total;\ny[token * N + n] = T(last[0]);",
    "skips_the_biases": RIGHT.replace(" + float(biases[group])", ""),
    "too_wide": RIGHT,
}


def write_contract(kernels: Path) -> None:
    """Cuts qmatvec's contract to SHAPE and CHECK."""
    contract = yaml.safe_load((KERNELS / "qmatvec" / "contract.yaml").read_text())
    contract |= {"check": CHECK, "bench": [SHAPE]}
    (kernels / "qmatvec" / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))


def write_variant(kernels: Path, name: str, body: str) -> Path:
    """Adds a Metal variant of qmatvec to a folder of kernels; `too_wide` has a threadgroup that no GPU takes."""
    path = kernels / "qmatvec" / "metal" / f"{name}.metal"
    path.parent.mkdir(exist_ok=True)
    width = "512 * WIDTH" if name == "too_wide" else "WIDTH"
    path.write_text(HEADER.format(name=name, width=width) + body.strip("\n") + "\n")
    return path


def line_of(path: Path, text: str) -> str:
    """Where `text` stands, as a message names it: FILE:LINE."""
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)
    return f"{path.name}:{number}"

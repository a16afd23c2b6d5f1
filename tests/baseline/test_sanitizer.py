"""The emulator's sanitizer: a kernel for each fault, which must be found at its line, and its corrected twin."""

import re
from pathlib import Path

import numpy as np
import pytest

from baseline.elements import Array
from baseline.targets import emulated
from baseline.targets.msl_source import symbol
from tests.baseline.faults_of_flow import ARITHMETIC, DIVERGENT, WHOLE
from tests.baseline.faults_of_memory import OUTSIDE, RACES, UNINITIALISED
from tests.baseline.fine_kernels import FINE
from tests.sanitized import ARRAYS

FAULTS = {
    f"{section}-{name}": fault
    for section, faults in (
        ("outside", OUTSIDE),
        ("race", RACES),
        ("uninitialised", UNINITIALISED),
        ("divergent", DIVERGENT),
        ("arithmetic", ARITHMETIC),
        ("whole", WHOLE),
    )
    for name, fault in faults.items()
}

KERNELS = (
    {f"fault-{name}": fault.kernel() for name, fault in FAULTS.items()}
    | {f"twin-{name}": fault.twin() for name, fault in FAULTS.items()}
    | {f"fine-{name}": kernel for name, kernel in FINE.items()}
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kernels in one build."""
    return emulated.build([kernel.source() for kernel in KERNELS.values()], tmp_path_factory.mktemp("build"))


def run(library: Path, name: str) -> tuple[list[tuple[str, str, str, int]], Array]:
    return KERNELS[name].run(library, symbol(list(KERNELS).index(name)))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_at_its_line(library: Path, name: str) -> None:
    fault = FAULTS[name]
    findings, _ = run(library, f"fault-{name}")
    assert [finding[0] for finding in findings] == [fault.kind]
    [(kind, text, file, line)] = findings
    assert re.search(fault.says, text), text
    named = [(file, line)] + [
        (found[0], int(found[1])) for found in re.findall(r"\((\w+):(\d+)\)", text) if kind == "race"
    ]
    # A race has two lines; which of them comes second is a matter of the order.
    assert fault.place() in named, text


@pytest.mark.parametrize("name", [*(f"twin-{name}" for name in FAULTS), *(f"fine-{name}" for name in FINE)])
def test_a_correct_kernel_passes_in_every_order(library: Path, name: str) -> None:
    findings, y = run(library, name)
    assert findings == []
    expected = KERNELS[name].expected
    if expected is not None:
        np.testing.assert_allclose(y, expected(ARRAYS["x"]))
    assert np.isfinite(y).all()

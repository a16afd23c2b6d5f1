"""What a kernel is called with in a check: which shapes, and which kind of activations at each."""

from dataclasses import dataclass

from baseline.contract import Case, Contract
from baseline.errors import UsageError
from harness.build import OpLibrary
from harness.recipes import FIRST, spread


@dataclass(frozen=True)
class Trial:
    """One call of a kernel: a case of the contract and the kind of its activations.

    partial: where the backend is too slow for the case, only its first threadgroup runs, and no result is compared.
    sanitize: whether an emulated launch is run in every order of its threads, not in one alone.
    """

    case: Case
    recipe: str
    partial: bool = False
    sanitize: bool = True

    @property
    def label(self) -> str:
        """Names the trial in a reason; offsets follow from the sizes and are left out."""
        shown = {name: v for name, v in {**self.case.constants, **self.case.dims}.items() if "_" not in name}
        return " ".join(f"{name}={value}" for name, value in shown.items()) + f", {self.recipe} x"

    def of(self, output: str) -> str:
        """Names one output of the trial."""
        return f"{output}: {self.label}"


def trials(library: OpLibrary) -> list[Trial]:
    """Every supported check case with its kinds of activations, and a smaller cut of each bench case.

    The activations hardly decide what a sanitizer finds: the first kind of each case is enough for it.
    """
    partial, supported = not library.backend.full_size, library.check_cases
    listed = [
        Trial(case, recipe, sanitize=recipe == FIRST)
        for number, case in enumerate(library.contract.check)
        if case in supported
        for recipe in spread(number)
    ]
    return listed + [Trial(cut(library.contract, case), FIRST, partial) for case in library.contract.bench]


def cut(contract: Contract, case: Case) -> Case:
    """The case with each dim cut to the least that its shapes can be computed for: the oracle is slow."""
    for name, size in case.dims.items():
        sizes = (Case(case.constants, {**case.dims, name: most}) for most in range(1, size))
        case = next((smaller for smaller in sizes if _computes(contract, smaller)), case)
    return case


def _computes(contract: Contract, case: Case) -> bool:
    """Whether no constant leaves a remainder of a dim."""
    try:
        for tensor in (*contract.inputs, *contract.outputs):
            contract.shape(tensor, case)
    except UsageError:
        return False
    return True

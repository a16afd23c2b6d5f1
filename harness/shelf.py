"""A run's own kernels: the variants that it began with, and those that were proposed since."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from baseline.errors import UsageError
from baseline.variant import SUFFIXES, Variant, parse_variant


class Shelf(Mapping[str, Mapping[str, Variant]]):
    """Variants by op and name, in a run's folder of kernels."""

    def __init__(self, kernels: Path, target: str, variants: Mapping[str, Mapping[str, Variant]]) -> None:
        self.kernels, self.target = kernels, target
        self._variants = {op: dict(of_op) for op, of_op in variants.items()}

    def add(self, op: str, name: str, text: str) -> Variant:
        """Writes the text of a new variant into the run's folder, and puts it on the shelf.

        UsageError when it is no sound variant: nothing is left behind. A name that is taken gets a number appended.
        """
        taken, number, free = self._variants[op], 2, name
        while free in taken:
            free, number = f"{name}{number}", number + 1
        path = self.kernels / op / self.target / f"{free}{SUFFIXES[self.target]}"
        path.write_text(text)
        try:
            variant = parse_variant(path)
        except UsageError:
            path.unlink()
            raise
        taken[free] = variant
        return variant

    def __getitem__(self, op: str) -> Mapping[str, Variant]:
        return self._variants[op]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def __len__(self) -> int:
        return len(self._variants)

"""What a search may use: variants and layouts of the folder of kernels, and those that its proposers write."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from baseline.contract import load_contract
from baseline.durable import durable
from baseline.errors import UsageError
from baseline.layout import Layout
from baseline.variant import METAL, PLAIN, SUFFIXES, Variant, list_variants, named_variant, suffix_of
from harness.layouts import LAYOUTS, Layouts, free_name
from harness.likeness import split
from harness.settings import OPS, SearchSettings
from harness.targets import Target


class Shelf(Mapping[str, Mapping[str, Variant]]):
    """Variants by op and name, those that this machine can build. `layouts` are beside them.

    kernels: a folder of contracts, laid out as the folder of kernels is, to which new variants and layouts are written.
    """

    def __init__(
        self,
        variants: Mapping[str, Mapping[str, Variant]],
        target: Target,
        kernels: Path,
        layouts: Iterable[Layout] = (),
    ) -> None:
        """`variants` and `layouts` are there already. UsageError where one of `kernels` is broken."""
        self.kernels, self._target = kernels, target
        self.layouts = Layouts(kernels / LAYOUTS, layouts)
        self._variants = {op: dict(of_op) for op, of_op in variants.items()}
        for op in self._variants:
            if any(path.suffix in SUFFIXES.values() for path in (kernels / op / target.name).glob("*")):
                self._variants[op] |= _usable(kernels, op, target)

    @property
    def target(self) -> str:
        """The name of the target that the variants are for."""
        return self._target.name

    def add(self, op: str, name: str, text: str) -> Variant:
        """Writes the text of a new variant, header and all, and puts it on the shelf.

        A name that is taken gets a number, and a Metal variant for CUDA the name of one. UsageError, in one line that
        says what is wrong, when it is no sound variant of `op`, or cannot be built here: it is left out.
        """
        if op not in self._variants:
            raise UsageError(f"op is {op!r}; this search has {', '.join(self._variants)}")
        if not name.isidentifier():
            raise UsageError(f"a variant's name must be an identifier, got {name!r}")
        if self.target == "cuda" and split(text)[0].get("target") == "metal":
            name = f"{METAL}{name.removeprefix(METAL)}"
        name = free_name(name, self._variants[op])
        path = self.kernels / op / self.target / f"{name}{suffix_of(self.target, name)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable(path) as partial:
            partial.write_text(text)
        try:
            variant = self._sound(path, op, name)
        except UsageError:
            path.unlink()
            raise
        self._variants[op][variant.name] = variant
        return variant

    def _sound(self, path: Path, op: str, name: str) -> Variant:
        variant = named_variant(path, name, self.target, load_contract(self.kernels / op))
        if not self._target.usable(variant):
            raise UsageError(f"variant {path}: this machine lacks one of {', '.join(variant.requires)}")
        return variant

    def __getitem__(self, op: str) -> Mapping[str, Variant]:
        return self._variants[op]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def __len__(self) -> int:
        return len(self._variants)


def usable_variants(settings: SearchSettings, target: Target) -> dict[str, dict[str, Variant]]:
    """The variants of the folder of kernels that this machine can build and a search may choose, by op and name.

    An op without any stays with MLX's own. UsageError when it is to be searched, or has no plain variant.
    """
    usable: dict[str, dict[str, Variant]] = {}
    for op in OPS:
        folder = settings.kernels / op / target.name
        if op not in settings.ops and not any(folder.glob("*")):
            continue
        found = _usable(settings.kernels, op, target)
        if PLAIN not in found:
            raise UsageError(f"{folder} has no usable variant named {PLAIN}")
        usable[op] = {PLAIN: found[PLAIN]} if settings.variants == PLAIN else found
    return usable


def _usable(kernels: Path, op: str, target: Target) -> dict[str, Variant]:
    listed = list_variants(kernels, op, target.name)
    return {variant.name: variant for variant in listed if target.usable(variant)}

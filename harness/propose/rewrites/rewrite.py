"""What a rewrite is: a named change of a kernel's text, a pure function, with what it is expected to bring."""

from abc import ABC, abstractmethod

from harness.propose.rewrites.kernel import Kernel
from harness.propose.rewrites.tree import OverlapError


class Rewrite(ABC):
    """One transformation. A variant is its seed's text and the list of rewrites that were applied to it, its header's
    `traits`: one is undone by applying the others to the seed again (see `compose`)."""

    name: str
    hypothesis: str
    targets: tuple[str, ...] = ("cpu",)

    @abstractmethod
    def rewritten(self, kernel: Kernel) -> Kernel | None:
        """The kernel with another code, and the tunables that it needs; None where there is nothing to rewrite."""

    def applies(self, text: str) -> bool:
        """Whether the variant with this text has what this rewrites, and was not rewritten so before."""
        return self._made(text) is not None

    def apply(self, text: str) -> str:
        """The text of the rewritten variant. Raises ValueError where it does not apply."""
        made = self._made(text)
        if made is None:
            raise ValueError(f"{self.name} does not apply")
        return made

    def _made(self, text: str) -> str | None:
        kernel = Kernel.parse(text)
        if kernel is None or kernel.target not in self.targets or self.name in kernel.traits:
            return None
        if not kernel.code.sound or kernel.body_block is None:
            return None
        try:
            made = self.rewritten(kernel)
        except OverlapError:  # its pattern occurs within itself
            return None
        if made is None or not made.code.sound:
            return None
        return made.with_header(hypothesis=self.hypothesis, traits=[*kernel.traits, self.name]).written()

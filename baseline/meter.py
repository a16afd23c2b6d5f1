"""How far a long piece of writing or reading is, in bytes."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class Meter:
    """Counts bytes towards a total and reports each step."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def advance(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)

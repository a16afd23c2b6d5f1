"""The I/O policy: how experts get from the disk into the graph."""

from dataclasses import dataclass

from baseline.errors import UsageError

CACHES = ("os", "direct")
SCHEDULES = ("graph", "eager")


@dataclass(frozen=True)
class IoPolicy:
    """How experts are read. Every field is a setting that a search turns.

    threads: read threads, the caller's included.
    reads_per_expert: preads that one expert's record is split into, at page boundaries.
    cache: "os" reads through the page cache; "direct" past it (O_DIRECT on Linux, F_NOCACHE on macOS).
    schedule: "graph" makes a whole token one lazy graph, whose reads start when MLX reaches them; "eager" evaluates
        the router's choice in each layer, reads, and goes on.

    Raises UsageError for a value out of range.
    """

    threads: int = 4
    reads_per_expert: int = 1
    cache: str = "os"
    schedule: str = "graph"

    def __post_init__(self) -> None:
        for name in ("threads", "reads_per_expert"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= 256:
                raise UsageError(f"io.{name} must be a whole number from 1 to 256, got {value!r}")
        for name, allowed in (("cache", CACHES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"io.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

"""The I/O policy: how experts get from the disk into the graph."""

from dataclasses import dataclass

import mlx.core as mx

from baseline.errors import UsageError

CACHES = ("os", "direct", "mapped")
SCHEDULES = ("graph", "eager")
METHODS = ("auto", "uring", "pread")
STREAMS = ("shared", "own")
PREFETCHES = ("none", "previous")


def caches() -> tuple[str, ...]:
    """Those of CACHES that this build of MLX has: mapped memory is no GPU's, and its allocator must be the CPU's."""
    gpu = mx.metal.is_available() or mx.cuda.is_available()
    return tuple(cache for cache in CACHES if not (gpu and cache == "mapped"))


@dataclass(frozen=True)
class IoPolicy:
    """How experts are read. Every field is a setting that a search turns.

    threads: read threads, the caller's included.
    reads_per_expert: reads that one expert's record is split into, at page boundaries.
    cache: "os" reads through the page cache; "direct" past it (O_DIRECT on Linux, F_NOCACHE on macOS); "mapped" leaves
        experts in the page cache, for MLX's CPU build: nothing is copied, and nothing needs reading that the cache
        holds, but what was used of it counts as memory of the process. reads_per_expert, method and prefetch are
        without effect there.
    schedule: "graph" makes a whole token one lazy graph, whose reads start when MLX reaches them; "eager" evaluates
        the router's choice in each layer, reads, and goes on.
    method: "uring" reads through io_uring, "pread" from the threads; "auto" takes io_uring for direct reads, where the
        build and the kernel have it: through the page cache the copy counts, and preads lose nothing.
    stream: MLX's CPU stream that reads run on. On the "shared" one they take their turn with the kernels; on their
        "own" a layer's reads are in flight while its shared expert computes, at the price of two fences a layer.
    prefetch: "previous" reads a layer's experts of the previous token ahead, once the layer before has its own; what
        the router then wants of them need not be read. It reads more in all.

    Raises UsageError for a value out of range.
    """

    threads: int = 4
    reads_per_expert: int = 1
    cache: str = "os"
    schedule: str = "graph"
    method: str = "auto"
    stream: str = "shared"
    prefetch: str = "none"

    def __post_init__(self) -> None:
        for name in ("threads", "reads_per_expert"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= 256:
                raise UsageError(f"io.{name} must be a whole number from 1 to 256, got {value!r}")
        choices = {"cache": CACHES, "schedule": SCHEDULES, "method": METHODS, "stream": STREAMS, "prefetch": PREFETCHES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"io.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def uring(self, available: bool) -> bool:
        """Whether experts are read through io_uring, which is `available` or not. UsageError if it must and cannot."""
        if self.method == "uring" and not available:
            raise UsageError(
                "io.method=uring: this build or this kernel has no io_uring; io.method=pread works everywhere"
            )
        return available and (self.method == "uring" or (self.method == "auto" and self.cache == "direct"))

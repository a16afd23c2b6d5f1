"""What no kernel can be faster than: a launch that does nothing, and the bytes that every kernel must touch."""

from dataclasses import dataclass

from baseline.contract import Contract
from baseline.mlx_ops import bytes_touched
from harness.candidate import Failure, Status

# Caches larger than this program knows, and a quieter minute than the probe's: beyond this no honest kernel comes.
MARGIN = 1.5


@dataclass(frozen=True)
class Floor:
    """Seconds of a launch: that of an empty kernel, and what reading and writing its bytes takes at the least."""

    noop_s: float
    bytes_s: float
    nbytes: int

    def lowered(self, other: "Floor") -> "Floor":
        """The lower of two that were measured for one op: the machine was busy at the other."""
        return Floor(min(self.noop_s, other.noop_s), min(self.bytes_s, other.bytes_s), self.nbytes)

    def failure(self, seconds: float) -> Failure | None:
        """Why a launch cannot have taken `seconds`; None where it can."""
        if seconds < self.noop_s / MARGIN:
            what = f"a kernel that does nothing takes {1e6 * self.noop_s:.1f}"
        elif seconds < self.bytes_s:
            what = f"{self.nbytes / 1e6:.1f} MB cannot be touched in less than {1e6 * self.bytes_s:.1f}"
        else:
            return None
        return Failure(Status.IMPOSSIBLE, f"faster than physics: {1e6 * seconds:.1f} us a launch, where {what}")


def floor(contract: Contract, noop_s: float, memory_gbps: float | None) -> Floor:
    """The floor at the contract's bench shape on a machine whose memory gives `memory_gbps` (1e9 bytes a second, None
    where that is not known: nothing is too fast for it then)."""
    nbytes = bytes_touched(contract, contract.bench[0])
    return Floor(noop_s, nbytes / (MARGIN * memory_gbps * 1e9) if memory_gbps else 0.0, nbytes)

"""The page cache: what state a measurement begins in, and how much of what each arm read came from it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.manifest import load_manifest
from baseline.page_cache import share_text

WARM, COLD, STEADY = "warm", "cold", "steady"
STATES = (WARM, COLD, STEADY)
PIECE = 1 << 20


@dataclass(frozen=True)
class CacheUse:
    """How each decode began, and what it read.

    state: "warm" with all experts read through the page cache, "cold" with all dropped from it, "steady" as the decodes
        before had left it.
    read_bytes: of experts, a token.
    cached: the share of them that did not come from the disk; None where that is not known, or nothing was read.
    """

    state: str
    read_bytes: float
    cached: float | None

    def text(self) -> str:
        """For people."""
        read = f"{self.read_bytes / 1e6:.2f} MB of experts read a token"
        return f"{self.state}: {read}{share_text(self.cached)}"


@dataclass(frozen=True)
class CacheUses:
    """The use of each arm: neither speaks for the other, whose policy and place in the block are its own."""

    champion: CacheUse
    candidate: CacheUse

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "CacheUses":
        """What `asdict` made of one. KeyError or TypeError when `record` has another form."""
        return cls(CacheUse(**record["champion"]), CacheUse(**record["candidate"]))

    def lines(self, champion: str, candidate: str) -> list[str]:
        """For people: one line, or one for each arm by name where they differ."""
        old, new = self.champion.text(), self.candidate.text()
        return [new] if old == new else [f"{champion}, {old}", f"{candidate}, {new}"]


def expert_files(packed: Path) -> list[Path]:
    """The files of a packed model's experts."""
    return [packed / layer.file for layer in load_manifest(packed).layers]


def warm(files: Iterable[Path]) -> None:
    """Reads files through."""
    piece = bytearray(PIECE)
    for path in files:
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(piece):
                pass


def drop(files: Iterable[Path]) -> None:
    """Asks the system to forget files, as far as nobody maps them. Does nothing where it cannot be asked (macOS)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

"""What came from the page cache is told of each arm, and of neither by the other."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from baseline.page_cache import between, cached_share, disk_bytes
from harness.blocks import Blocks
from harness.cache_state import STEADY, CacheUse, CacheUses
from harness.decode_check import Text
from harness.decodes import Decode, Timed

NOTHING = Text((), 0)


def decodes(*disk: int | None) -> list[Decode]:
    """Decodes of 2 tokens that read 100 bytes each, so many of them from disks."""
    return [Decode(1.0, 1.0, 100, found, NOTHING, ()) for found in disk]


def uses(champion: list[Decode], candidate: list[Decode]) -> CacheUses:
    return Timed(2, STEADY, Blocks(champion, candidate)).uses()


def test_each_arm_has_its_own() -> None:
    found = uses(decodes(100, 50), decodes(0, 0))
    assert found == CacheUses(CacheUse(STEADY, 50.0, 0.25), CacheUse(STEADY, 50.0, 1.0))
    assert CacheUses.from_json(asdict(found)) == found
    assert found.lines("old", "new") == [
        "old, steady: 0.00 MB of experts read a token, 25 % of it from the page cache",
        "new, steady: 0.00 MB of experts read a token, 100 % of it from the page cache",
    ]


def test_what_is_the_same_is_said_once() -> None:
    assert len(uses(decodes(10), decodes(10)).lines("old", "new")) == 1


def test_a_decode_of_which_nothing_is_known_leaves_its_arm_unknown() -> None:
    found = uses(decodes(10, None), decodes(10, 10))
    assert (found.champion.cached, found.candidate.cached) == (None, 0.9)


@pytest.mark.parametrize(("read", "disk", "share"), [(0, 0, None), (8, None, None), (8, 2, 0.75), (8, 9, 0.0)])
def test_the_share(read: int, disk: int | None, share: float | None) -> None:
    assert cached_share(read, disk) == share


@pytest.mark.skipif(disk_bytes() is None, reason="this system does not say what was read from disks")
def test_what_is_in_memory_is_not_read_from_a_disk(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    before = disk_bytes()
    file.read_bytes()
    assert between(before, disk_bytes()) == 0

"""The folders that libraries are built in, one a build; what builders left that are dead is removed.

A builder holds a lock (flock) on its folder, and the system lets it go when the builder ends, however that happens: a
folder that can be locked has no builder. So that none is met before it is locked, the cache is locked for the moment
between the two. What is held are shared locks, for which the right to read is enough on network disks too. On disks
without locks nothing is removed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

PREFIX = "building-"
HOLD, SEIZE = fcntl.LOCK_SH, fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def build_folder(cache: Path) -> Iterator[Path]:
    """A new folder in `cache`, which exists; gone when the context is left. OSError where it cannot be made."""
    remove_dead(cache)
    lock = ExitStack()
    with _locked(cache, HOLD):
        made = tempfile.TemporaryDirectory(dir=cache, prefix=PREFIX)
        lock.enter_context(_locked(Path(made.name), HOLD))
    with lock, made as folder:
        yield Path(folder)


def remove_dead(cache: Path) -> None:
    """Removes the folders in `cache` that have no builder. Does not fail: one that cannot be removed is left."""
    with suppress(OSError), _locked(cache, SEIZE):
        for folder in cache.glob(f"{PREFIX}*"):
            with suppress(OSError), _locked(folder, SEIZE):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError) if how == HOLD else nullcontext():
            fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)

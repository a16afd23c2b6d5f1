"""Where things that can be made again are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """For what can be made again: packed models, compiled kernels, golden records. Follows XDG."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has a relative path ignored.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "nightforge"

"""What NVRTC compiles for MLX in this process is kept, as files that MLX finds again when it is started anew."""

import os
import sys
from pathlib import Path

SAID = "nvrtcGetCUBIN"  # in MLX's error for a kernel that was kept


def keep(folder: Path) -> None:
    """Keeps in `folder`, from now on, what is compiled, and launches none of it: evaluating a kernel raises a
    RuntimeError with SAID. Linux; called first before MLX is imported."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # MLX then finds its functions before NVRTC's
    try:
        import baseline._nvrtc as nvrtc
    finally:
        sys.setdlopenflags(flags)
    nvrtc.keep_in(str(folder))

"""What NVRTC compiles for MLX in this process is kept, as files that MLX finds again when it is started anew."""

import os
import sys
from pathlib import Path

SAID = "nvrtcGetCUBIN"  # in MLX's error for a kernel that was kept and is not to be launched


def keep(folder: Path, launch: bool) -> None:
    """Keeps in `folder`, from now on, what is compiled. To be called before MLX is imported, on Linux.

    Without `launch` MLX gets an error with SAID in place of each kernel, so that none of them is launched.
    """
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # MLX then finds its functions before NVRTC's
    try:
        import baseline._nvrtc as nvrtc
    finally:
        sys.setdlopenflags(flags)
    nvrtc.keep_in(str(folder), launch)

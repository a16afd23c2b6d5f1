"""What a confined process keeps so that NVIDIA's driver, and MLX's CUDA build on it, work."""

from contextlib import suppress
from functools import cache
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-caps")
FACTS = (  # read by the driver's library: what the system knows of the GPUs and of its own parts
    *("/proc/driver/nvidia*", "/proc/devices", "/proc/modules", "/proc/sys/vm/mmap_min_addr"),
    *("/sys/bus/pci/devices", "/sys/devices/pci*", "/sys/devices/system/memory", "/sys/module/nvidia*"),
)
NAMES = "/proc/self/task"  # the driver names its threads there, and gives up where it may not
COMPILED = "MLX_PTX_CACHE_DIR"  # names the folder in which MLX looks for a kernel before it has NVRTC compile it
TOOLS = ("mlx-cuda-13", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime")  # packages that make code of a kernel
PASSED_ON = ("CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES")  # where headers for NVRTC lie; which GPU is meant
# float32 is computed as such: the golden record is. What the driver compiles is not kept, which would set file times.
SETTINGS = {"MLX_ENABLE_TF32": "0", "CUDA_CACHE_DISABLE": "1"}
LET_THROUGH = (
    "files: NVIDIA's devices may be opened and asked anything (ioctl); the driver's facts in /proc and /sys are read; "
    "what the process has in /proc of its own threads is written; with MLX's CUDA build that goes for target cpu too",
    "system calls: threads may be started, processes not; the limit of the stack may be set",
    "memory: the GPU's, and what the driver shares with it, is not counted",
    "kernels: a GPU has no guard pages; what lies behind a buffer of the same process is read and written unseen",
)
"""Where the confinement of a child that computes on such a GPU is weaker than that of others, for people."""


def devices() -> tuple[str, ...]:
    """The device files of this machine's GPUs of NVIDIA's; () where there is no driver."""
    return _found(DEVICES)


def facts() -> tuple[str, ...]:
    """What is read beside them."""
    return _found(FACTS)


@cache
def in_use() -> bool:
    """Whether MLX computes on such a GPU here: its very import asks the driver then, whatever computes afterwards."""
    import mlx.core as mx

    return mx.cuda.is_available()


@cache
def toolchain() -> str:
    """What a compiled kernel depends on beside its source, as a part of a path: the GPU's architecture and versions."""
    import mlx.core as mx

    parts = [str(mx.device_info(mx.gpu)["architecture"])]
    for name in TOOLS:
        with suppress(PackageNotFoundError):  # the system's own, or of another version of CUDA
            parts.append(f"{name}-{version(name)}")
    return "_".join(parts)


def compiled_in(scratch: Path) -> Path:
    """Where in a child's scratch folder its MLX finds compiled kernels."""
    return scratch / "mlx" / toolchain()


def _found(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for pattern in patterns for path in sorted(glob(pattern)))

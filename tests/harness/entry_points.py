"""Entry points in C++, built straight with the compiler: all that a candidate's code could do."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = """#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <new>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#endif
extern "C" void entry(const void* const* in, void* const* out, const long* dims, int thread, int n_threads) {
  const float* x = static_cast<const float*>(in[0]);
  float* y = static_cast<float*>(out[0]);
  const long n = dims[0];
"""
RIGHT = "for (long i = thread; i < n; i += n_threads) y[i] = 2 * x[i];"


def compile_entry(folder: Path, body: str, name: str = "kernel") -> Path:
    """A library whose `entry` has `body`; x [n] and y [n] are float32 and n is the only dim."""
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    source.write_text(SIGNATURE + body + "\n}\n")
    subprocess.run(["c++", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def check_job(folder: Path, library: Path, x: np.ndarray) -> dict[str, Any]:
    """A check job of one call on `x`."""
    np.savez(folder / "inputs.npz", x=x)
    call = {
        "backend": "cpu",
        "library": str(library),
        "symbol": "entry",
        "threads": 2,
        "dims": [len(x)],
        "inputs": ["x"],
        "outputs": [{"name": "y", "dtype": "float32", "shape": list(x.shape)}],
    }
    files = {"inputs": str(folder / "inputs.npz"), "outputs": str(folder / "outputs.safetensors")}
    return {"kind": "check", "device": "cpu", "calls": [call], **files}

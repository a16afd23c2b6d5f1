"""Entry points whose threads each leave a mark, built straight with the compiler."""

import os
import subprocess
from pathlib import Path

# add: y [n] = a [n] + 2 * b [n], and the number of each thread, from 1. dims: n.
ADD = r"""
extern "C" void add(const void* const* in, void* const* out, const long* dims, int thread, int n_threads) {
  auto a = static_cast<const float*>(in[0]); auto b = static_cast<const float*>(in[1]);
  long n = dims[0], begin = n * thread / n_threads, end = n * (thread + 1) / n_threads;
  for (long i = begin; i < end; ++i) static_cast<float*>(out[0])[i] = a[i] + 2 * b[i];
  static_cast<int*>(out[1])[thread] = thread + 1;
}
"""
# spin: y [threads] = 2 * x + 1, each after so many microseconds on a core, and which thread of the process it was.
# dims: microseconds.
SPIN = r"""
#include <atomic>
#include <chrono>
static std::atomic<int> threads{0};
static thread_local int number = ++threads;
extern "C" void spin(const void* const* in, void* const* out, const long* dims, int thread, int n_threads) {
  auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(dims[0]);
  while (std::chrono::steady_clock::now() < until) continue;
  static_cast<float*>(out[0])[thread] = 2 * static_cast<const float*>(in[0])[thread] + 1;
  static_cast<int*>(out[1])[thread] = number;
}
"""


def compile_kernels(folder: Path) -> str:
    """The library of `add` and `spin`."""
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(ADD + SPIN)
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, "-std=c++20", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)

"""What the emulated target takes of Metal's language, and what it refuses as Metal does."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from baseline.targets import emulated
from baseline.targets.emulated import metal_kernel
from baseline.targets.msl_source import symbol
from tests.launches import I, launch, same
from tests.sanitized import ARRAYS, Kernel, N

# v is (x, 1, 2, 3).
VECTOR = "float4 v(x[i], 1, 2, 3);\n"
SWIZZLES = {
    "times_a_matrix": Kernel(
        f"{VECTOR}float3x3 m(2); float2x2 n(1, 2, 3, 4);\ny[i] = (m * v.xyz).x + (n * v.xz).y + (v.xy * n).x;",
        expected=lambda x: 2 * x + (2 * x + 8) + (x + 2),
    ),
    "in_a_conditional": Kernel(
        f"{VECTOR}float2 u = i % 2 ? v.xy : v.wz;\nconst device packed_float4* p = (const device packed_float4*)x;\n"
        "float2 w = i % 2 ? u : p->yx; y[i] = u.x + w.x;",
        expected=lambda x: np.where(np.arange(N) % 2, 2 * x, 4.5),
    ),
    "to_a_template": Kernel(
        f"{VECTOR}y[i] = swapped(v.xw).x + swapped(-v.yx).y;",
        "template <typename T>\nvec<T, 2> swapped(vec<T, 2> a) { return a.yx; }\n",
        expected=lambda x: 3 - np.ones(N),
    ),
    "kept_by_auto": Kernel(
        f"{VECTOR}auto u = v.xy; u.x = 7; y[i] = v.x + u.y + sizeof(v.xy);", expected=lambda x: x + 1 + 8
    ),
    "compared_and_assigned": Kernel(
        f"{VECTOR}v.zw = v.xy; v.xy += v.zw; v.yx *= 2;\n"
        "y[i] = all(v.zw == float2(x[i], 1)) && all(v.zw <= v.xy) && any(v.xy != v.zw) ? v.x : -1;",
        expected=lambda x: 4 * x,
    ),
    "name_of_a_member": Kernel(
        "Pair p; p.xy = x[i]; p.rg = 3; raise(p.xy); p.rg++; y[i] = p.xy * p.rg + p.ba(1);",
        "struct Pair { float xy; int rg; float ba(int n) { return n; } };\nvoid raise(thread float& a) { a += 1; }\n",
        expected=lambda x: 4 * (x + 1) + 1,
    ),
}
MACROS = {
    "version": Kernel(
        "#if defined(__METAL__) && __METAL_VERSION__ >= 310 && defined(__HAVE_BFLOAT__)\ny[i] = x[i];\n#endif\n",
        expected=lambda x: x,
    )
}
KERNELS = SWIZZLES | MACROS


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kernels in one build."""
    return emulated.build([kernel.source() for kernel in KERNELS.values()], tmp_path_factory.mktemp("build"))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_means_what_it_means_in_metal(library: Path, name: str) -> None:
    kernel = KERNELS[name]
    findings, y = kernel.run(library, symbol(list(KERNELS).index(name)))
    assert findings == [] and kernel.expected is not None
    np.testing.assert_array_equal(y, kernel.expected(ARRAYS["x"]).astype(np.float32))


# Names of the C library's, MLX's own erf, and overloads of Metal's functions.
NAMES = """
constant float gamma = 2.0f;
constant constexpr int y1 = 3, index = 4, signgam = 5;
struct stat { float a; };
float lgamma(float a) { return a + 6; }
static inline float tanhf(float a) { return tanh(a) + 7; }
float erf(float a) { return a + 8; }
float expm1f(float a) { return exp(a) - 1; }
uint rand(uint seed) { return seed * 9; }
stat max(stat a, stat b) { return a.a < b.a ? b : a; }
namespace metal { float thrice(float a) { return 3 * a; } }
[[visible]] float helper(float a) { return a; }
"""


def test_names_are_free_that_metal_leaves_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    body = (
        "bool visible = x[i] > 0, noise = false; int time = 1, div = 1;\n"
        "float sum = gamma + y1 + index + signgam + visible + noise + time + div;\n"
        "sum += lgamma(0) + tanhf(0) + erf(half(0)) + expm1f(0) + rand(1u) + ::helper(1) + metal::thrice(1);\n"
        "y[i] = sum + max(stat{1}, stat{2}).a + max(1.0f, 2.0f) + ::metal::max(1, 2);\n"
    )
    found = launch(metal_kernel("names", ["x"], ["y"], f"{I}{body}", NAMES), mx.ones(4))
    same(found, np.full(4, 2 + 3 + 4 + 5 + 1 + 1 + 1 + 6 + 7 + 8 + 9 + 1 + 3 + 2 + 2 + 2))

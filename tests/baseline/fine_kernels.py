"""Kernels without a fault that a sanitizer might take for faulty."""

import numpy as np

from tests.sanitized import BARRIER, DEVICE_BARRIER, SIMD_BARRIER, STAGE, Kernel, N

FINE = {
    "simd_groups_reduce": Kernel(
        "threadgroup float part[2]; float v = simd_sum(x[i]); if (lane == 0) part[group] = v;\n"
        f"{BARRIER}\n"
        "y[i] = simd_sum(lane < 2 ? part[lane] : 0.0f);",
        expected=lambda x: np.full(N, x.sum()),
    ),
    "neighbours_after_a_barrier": Kernel(f"{STAGE}{BARRIER} y[i] = a[63 - t];", expected=lambda x: x[::-1]),
    "device_neighbours_after_a_barrier": Kernel(
        f"y[i] = x[i]; {DEVICE_BARRIER} float v = y[63 - i]; {DEVICE_BARRIER} y[i] = v;", expected=lambda x: x[::-1]
    ),
    "double_buffer": Kernel(
        "threadgroup float a[2][64]; float sum = 0;\n"
        f"for (int r = 0; r < 5; ++r) {{ a[r & 1][t] = x[i]; {BARRIER} sum += a[r & 1][63 - t]; "
        f"}}\n"
        "y[i] = sum;",
        expected=lambda x: 5 * x[::-1],
    ),
    "tree": Kernel(
        f"{STAGE}for (uint s = 32; s > 0; s /= 2) {{ {BARRIER} if (t < s) a[t] += a[t + s]; }} {BARRIER} y[i] = a[0];",
        expected=lambda x: np.full(N, x.sum()),
    ),
    "exchange_within_a_simd_group": Kernel(
        f"{STAGE}{SIMD_BARRIER} float v = a[t ^ 5]; {SIMD_BARRIER} a[t] = v + 1; {SIMD_BARRIER} y[i] = a[t ^ 5];",
        expected=lambda x: x + 1,
    ),
    "device_exchange_within_a_simd_group": Kernel(
        "y[i] = x[i]; simdgroup_barrier(mem_flags::mem_device); float v = y[i ^ 1]; "
        "simdgroup_barrier(mem_flags::mem_device); y[i] = v;",
        threads=32,
        expected=lambda x: x[np.arange(N) ^ 1],
    ),
    "partial_simd_group": Kernel(
        "threadgroup float total; float v = simd_sum(x[i]); "
        f"if (lane == 0 && group == 0) total = v; {BARRIER}\n"
        "y[i] = total; if (i < 14) y[50 + i] = 0;",
        threads=50,
        grid=50,
        expected=lambda x: np.where(np.arange(N) < 50, x[:32].sum(), 0),
    ),
    "ragged_grid": Kernel(
        f"threadgroup float a[24]; a[t] = x[i]; {BARRIER} y[i] = a[0];",
        threads=24,
        expected=lambda x: x[np.arange(N) // 24 * 24],
    ),
    "signed_overflow_wraps": Kernel(
        "int v = int(x[i]) + 0x7fffffff; y[i] = v * 2;", expected=lambda x: 2 * np.floor(x) - 2
    ),
    "copies_of_a_line_are_one_place": Kernel(  # a compiler makes such copies where it unrolls a loop
        "float v;\nif (lane % 2) v = sum(x[i]); else v = sum(x[i]);\ny[i] = v;",
        "float sum(float v) {\n  return simd_sum(v);\n}\n",
        expected=lambda x: np.repeat([x[:32].sum(), x[32:].sum()], 32),
    ),
    "early_return_without_barrier": Kernel("y[i] = x[i]; if (i % 3 == 0) return; y[i] = -x[i];"),
    "simd_groups_return_before_a_simd_function": Kernel(
        "y[i] = 0; if (group == 1) return; y[i] = simd_sum(1.0f);", expected=lambda x: np.arange(N) // 32 * -32 + 32.0
    ),
    "quads_return_before_a_quad_function": Kernel("y[i] = 0; if (lane / 4 == 2) return; y[i] = quad_sum(1.0f);"),
    "simd_functions_of_one_group_only": Kernel(
        f"threadgroup float v; if (group == 1) {{ float s = simd_sum(x[i]); if (lane == 7) v = s; "
        f"}} {BARRIER} y[i] = v;"
    ),
    "counter": Kernel(
        "threadgroup atomic_uint n; if (t == 0) atomic_store_explicit(&n, 0, "
        f"memory_order_relaxed); {BARRIER}\n"
        f"atomic_fetch_add_explicit(&n, k[i % 4], memory_order_relaxed); {BARRIER}\n"
        "y[i] = atomic_load_explicit(&n, memory_order_relaxed);",
        expected=lambda x: np.full(N, 160),
    ),
    "counters_in_an_array": Kernel(
        "threadgroup atomic_int n[4]; if (t < 4) atomic_store_explicit(n + t, 0, "
        f"memory_order_relaxed); {BARRIER}\n"
        "atomic_fetch_add_explicit(&n[t % 4], 1, memory_order_relaxed); "
        f"{BARRIER} y[i] = atomic_load_explicit(&n[t % 4], memory_order_relaxed);",
        expected=lambda x: np.full(N, 16),
    ),
    "words_read_as_bytes": Kernel(
        "threadgroup uint a[64]; a[t] = words[i] * 0x01010101u; "
        f"{BARRIER} y[i] = ((threadgroup uchar*)a)[4 * (63 - t) + k[1]];",
        expected=lambda x: x[::-1] - 0.5,
    ),
    "vectors_read_as_floats": Kernel(
        "threadgroup float4 a[16]; if (t < 16) a[t] = ((const device float4*)x)[t]; "
        f"{BARRIER} y[i] = ((threadgroup float*)a)[t];",
        expected=lambda x: x,
    ),
    "floats_read_as_vectors": Kernel(
        f"{STAGE}{BARRIER} threadgroup float4* p = (threadgroup float4*)a; "
        "float2 v = p[t / 4].xy; y[i] = p[t / 4].w + v.y;"
    ),
    "half_array": Kernel(
        f"threadgroup half a[64]; a[t] = half(x[i]); {BARRIER} y[i] = float(a[63 - t]);", expected=lambda x: x[::-1]
    ),
    "bfloat_array": Kernel(
        f"threadgroup bfloat16_t a[64]; a[t] = bfloat16_t(t); {BARRIER} y[i] = float(a[63 - t]);",
        expected=lambda x: x[::-1] - 0.5,
    ),
    "bool_array": Kernel(
        f"threadgroup bool a[64]; a[t] = t % 3 == 0; {BARRIER} y[i] = a[63 - t] ? 1 : 0;",
        expected=lambda x: np.arange(N) % 3 == 0,
    ),
    "uchar_array": Kernel(
        f"threadgroup uint8_t a[64]; a[t] = t; {BARRIER} y[i] = a[63 - t];", expected=lambda x: x[::-1] - 0.5
    ),
    "array_of_arrays": Kernel(
        f"threadgroup metal::array<float, 4> a[16]; a[t / 4][t % 4] = x[i]; {BARRIER} y[i] = a[15 - t / 4][3 - t % 4];",
        expected=lambda x: x[::-1],
    ),
    "struct": Kernel(
        f"threadgroup Pair a[32]; a[t / 2].v[t % 2] = x[i]; {BARRIER} Pair p = a[31 - t / 2]; y[i] = p.v[1 - t % 2];",
        header="struct Pair { float v[2]; };\n",
        expected=lambda x: x[::-1],
    ),
    "several_declarators": Kernel(
        "threadgroup float a[64], b, c[2][32]; a[t] = 1; c[group][lane] = 2; if (t == 9) b = 3; "
        f"{BARRIER} y[i] = a[63 - t] + b + c[1 - group][lane];",
        expected=lambda x: np.full(N, 6),
    ),
    "declared_in_a_block": Kernel(
        f"y[i] = 0; for (int r = 0; r < 2; ++r) {{ threadgroup float a[64]; a[t] = x[i]; "
        f"{BARRIER} y[i] += a[63 - t]; {BARRIER} }}",
        expected=lambda x: 2 * x[::-1],
    ),
    "everything_of_threadgroup_memory": Kernel(
        f"threadgroup float a[8192]; for (int j = t; j < 8192; j += 64) a[j] = j; {BARRIER} y[i] = a[8191 - t];"
    ),
    "same_memory_by_turns": Kernel(
        f"{STAGE}{BARRIER} if (t == 0) a[0] = 9; {BARRIER} y[i] = a[0]; "
        f"{BARRIER} if (t == 63) a[0] = 8; {BARRIER} y[i] += a[0];",
        expected=lambda x: np.full(N, 17),
    ),
    "next_threadgroup_begins_anew": Kernel(
        f"threadgroup float a[16]; a[15 - t] = x[i]; {BARRIER} y[i] = a[t];", threads=16
    ),
    "table_and_templates": Kernel(
        "y[i] = Table<4>::get(k[i % 4] - 1) + twice<2>(x, i) + sum_of(k, 4);",
        header="constant float table[4] = {1, 2, 3, 4};\n"
        "template <int N> struct Table { static float get(int i) { return table[i % N]; } };\n"
        "template <int F, typename P> auto twice(P p, uint i) { return F * p[i]; }\n"
        "METAL_FUNC float sum_of(const constant int* values, int n) { float s = 0; "
        "for (int j = 0; j < n; ++j) s += values[j]; return s; }\n",
        expected=lambda x: np.arange(N) % 4 + 1 + 2 * x + 10,
    ),
    "thread_arrays_by_pointer": Kernel(
        "float a[8]; fill(a, x + i / 8 * 8); y[i] = a[7 - i % 8];",
        header="void fill(thread float* to, const device float* from) { for (int j = 0; j < 8; "
        "++j) to[j] = from[j]; }\n",
    ),
    "one_thread": Kernel(
        "for (int j = 0; j < 64; ++j) y[j] = 1; y[3] += 1; threadgroup float a[2]; a[0] = 1; a[1] = a[0]; y[4] = a[1];",
        threads=1,
        grid=1,
    ),
    "a_load_that_a_condition_guards": Kernel(
        "float v = 0; for (int j = 0; j < 3; ++j) if (int(i) - j >= 0) v += x[i - j]; y[i] = v; "
        "if (i + 1 < 64 && x[i + 1] < 0) y[i] = 0;"
    ),
    "threadgroup_loads_that_a_condition_guards": Kernel(
        f"threadgroup float a[4]; if (t == 0) a[3] = 1; {BARRIER}\n"
        "float v = 0;\n"
        f"for (int j = 0; j < 8; ++j) {{ if (t > 99) v += a[2]; if (j == 3) v += a[3]; }}\n"
        "y[i] = t > 99 ? a[1] : v;",
        expected=lambda x: np.ones(N),
    ),
    "matrix": Kernel(
        f"threadgroup float a[64]; a[t] = x[i]; {BARRIER}\n"
        f"if (group == 0) {{ simdgroup_float8x8 m, e(1.0f), r; simdgroup_load(m, a, 8); "
        f"simdgroup_multiply(r, m, e); simdgroup_store(r, y, 8); }}",
        expected=lambda x: x,
    ),
    "two_barriers_on_one_line_each": Kernel(
        f"{STAGE}if (k[0] == 1) {{ {BARRIER} }} else {{ {BARRIER} }} y[i] = a[63 - t];", expected=lambda x: x[::-1]
    ),
    "last_lane_broadcasts": Kernel(
        "y[i] = simd_broadcast(x[i], ushort(31)); ", expected=lambda x: x[np.arange(N) // 32 * 32 + 31]
    ),
}

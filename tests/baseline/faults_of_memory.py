"""Kernels with a fault in how they use memory, each with its fix."""

from tests.sanitized import BARRIER, DEVICE_BARRIER, SIMD_BARRIER, STAGE, Fault

OUTSIDE = {
    "read_behind_an_input": Fault(
        "out of bounds",
        "thread 63 reads 4 bytes at byte 256 of `x`, which has 256",
        "y[i] =\n  x[i + k[0]]; //!",
        ("k[0]", "0"),
    ),
    "read_before_an_input": Fault(
        "out of bounds", "reads 4 bytes at byte -4 of `x`", "y[i] = x[int(i) - k[0]]; //!", ("- k[0]", "- 0")
    ),
    "read_far_away": Fault(
        "out of bounds", "no buffer is near", "y[i] = x[i + (ulong(k[0]) << 40)]; //!", ("<< 40", ">> 40")
    ),
    "read_through_null": Fault(
        "out of bounds",
        "no buffer is near",
        "const device float* p = i + k[0] == 64 ? nullptr : x;\ny[i] = p[i]; //!",
        ("== 64", "== 65"),
    ),
    "write_behind_an_output": Fault(
        "out of bounds",
        "thread 63 writes 4 bytes at byte 256 of `y`",
        "y[i] = 0;\ny[i + k[0] * int(i == 63)] = x[i]; //!",
        ("k[0]", "0"),
    ),
    "write_before_an_output": Fault(
        "out of bounds",
        "thread 0 writes 4 bytes at byte -4 of `y`",
        "y[i] = 0;\ny[int(i) - k[0] * int(i == 0)] = x[i]; //!",
        ("k[0]", "0"),
    ),
    "vector_that_sticks_out": Fault(
        "out of bounds",
        "of `x`, which has 256",
        "y[i] = dot(float4(*(const device packed_float4*)(x + i)), float4(1)); //!",
        ("x + i", "x + min(i, 60u)"),
    ),
    "bytes_behind_an_input": Fault(
        "out of bounds",
        "reads 1 bytes at byte 256 of `words`",
        "y[i] = ((const device uchar*)words)[i * 4 + 4]; //!",
        ("+ 4]", "+ 3]"),
    ),
    "half_of_a_float_output": Fault(
        "out of bounds",
        "writes 2 bytes at byte 256 of `y`",
        "((device half*)y)[i * 2 + 1] = 1;\n((device half*)y)[i * 2 + k[0] * 2 * int(i == 63)] = 1; //!",
        ("k[0]", "0"),
    ),
    "threadgroup_array": Fault(
        "out of bounds",
        r"thread 63 uses index 64 of an array .*float ?\[64\]",
        "threadgroup float a[64];\na[t + k[0]] = x[i]; //!\ny[i] = 0;",
        ("k[0]", "0"),
    ),
    "element_of_a_vector": Fault(
        "out of bounds",
        r"thread 4 uses index 4 of an array .*vector_element ?\[4\]",
        "float4 v(x[i], 1, 2, 3);\ny[i] =\n  v[i % (4 + k[0])]; //!",
        ("k[0]", "0"),
    ),
    "column_of_a_matrix": Fault(
        "out of bounds",
        r"thread 2 uses index 2 of an array .*vector_element ?\[2\]",
        "float2x3 m(x[i]); m[i % (2 + k[0])].y = 1; //!\ny[i] = m[0].y;",
        ("k[0]", "0"),
    ),
    "threadgroup_array_by_pointer": Fault(
        "out of bounds",
        "thread 63 writes 4 bytes at byte 256 of `a`, which has 256",
        "threadgroup float a[64]; threadgroup float* p = a;\np[t + k[0]] = x[i]; //!\ny[i] = 0;",
        ("k[0]", "0"),
    ),
    "row_of_a_threadgroup_tile": Fault(
        "out of bounds",
        r"index 33 of an array .*float ?\[33\]",
        "threadgroup float a[2][33];\na[group][lane + k[1]] = x[i]; //!\ny[i] = 0;",
        ("k[1]", "k[0]"),
    ),
    "thread_array": Fault(
        "out of bounds",
        r"index 4 of an array .*float ?\[4\]",
        "float a[4] = {1, 2, 3, 4};\ny[i] = a[k[i % 4]]; //!",
        ("k[i % 4]", "k[i % 4] - 1"),
    ),
    "thread_array_below": Fault(
        "out of bounds",
        r"index -1 of an array .*float ?\[4\]",
        "float a[4] = {1, 2, 3, 4};\ny[i] = a[k[i % 4] - 2]; //!",
        ("- 2", "- 1"),
    ),
    "table_in_the_header": Fault(
        "out of bounds",
        r"index 4 of an array .*float ?\[4\]",
        "y[i] = table[k[i % 4]]; //!",
        ("k[i % 4]", "k[i % 4] - 1"),
        header="constant float table[4] = {1, 2, 3, 4};\n",
    ),
    "shape": Fault("out of bounds", "at byte 4 of `x_shape`, which has 4", "y[i] = x_shape[k[0]]; //!", ("k[0]", "0")),
    "strides": Fault(
        "out of bounds", "at byte 8 of `x_strides`, which has 8", "y[i] = x_strides[k[0]]; //!", ("k[0]", "0")
    ),
    "constant_input": Fault(
        "out of bounds", "at byte 16 of `k`, which has 16", "y[i] = k[i / 13]; //!", ("/ 13", "/ 16")
    ),
    "in_an_inlined_helper": Fault(
        "out of bounds",
        "of `x`",
        "y[i] = 0;\ny[i] = get(x, i);",
        ("p[i + 1]", "p[i]"),
        header="// reads\ninline float get(const device float* p, uint i) {\n  return p[i + 1]; //!\n}\n",
    ),
    "in_a_called_helper": Fault(
        "out of bounds",
        "of `x`",
        "y[i] = get(x, i);\ny[i] += get(x, i);",
        ("p[i + 1]", "p[i]"),
        header="[[gnu::noinline]] float get(const device float* p, uint i) {\n"
        "  float sum = 0;\n"
        "  sum += p[i + 1]; //!\n"
        "  return sum;\n"
        "}\n",
    ),
    "in_a_helper_of_the_library": Fault(
        "out of bounds",
        "of `x`",
        "simdgroup_float8x8 m;\ny[i] = 0;\nsimdgroup_load(m, x, k[1] + 7); //!\ny[i] = m.thread_elements()[0];",
        ("k[1] + 7", "k[0] + 7"),
    ),
    "misaligned_vector": Fault(
        "misaligned",
        "aligned to 16 bytes at byte 4 of `x`",
        "y[i] = dot(*(const device float4*)(x + k[0]), float4(1)); //!",
        ("(x + k[0])", "(x + 4 * k[0])"),
    ),
    "misaligned_scalar": Fault(
        "misaligned",
        "aligned to 4 bytes at byte 2 of `words`",
        "y[i] = *(const device uint*)((const device uchar*)words + k[1]); //!",
        ("k[1]", "k[3]"),
    ),
}

RACES = {
    "write_then_read": Fault(
        "race", "of `a` is .* by thread", f"{STAGE};\ny[i] = a[63 - t]; //!", (";\ny", f"{BARRIER}\ny")
    ),
    "read_then_write": Fault(
        "race",
        "of `a` is .* by thread",
        f"{STAGE}{BARRIER}\ny[i] = a[63 - t];\na[t] = 0; //!",
        ("\na[t]", f"{BARRIER}\na[t]"),
    ),
    "write_twice": Fault(
        "race",
        "of `a` is written by thread 0 .* and written by thread",
        f"threadgroup float a[64]; if (t != 1) a[t] = 0;\na[k[0]] = i; //!\n{BARRIER} y[i] = a[t];",
        ("= i;", "= 1;"),
    ),
    "simd_groups_write_one": Fault(
        "race",
        "of `total` is written",
        f"threadgroup float total;\ntotal = simd_sum(x[i]); //!\n{BARRIER} y[i] = total;",
        ("x[i]", "1.0f"),
    ),
    "simd_barrier_between_simd_groups": Fault(
        "race", "of `a`", f"{STAGE}{SIMD_BARRIER}\ny[i] = a[63 - t]; //!", ("63 - t", "group * 32 + 31 - lane")
    ),
    "within_a_simd_group": Fault(
        "race", "for mem_threadgroup between", f"{STAGE};\ny[i] = a[t ^ 1]; //!", (";\ny", f"{SIMD_BARRIER}\ny")
    ),
    "barrier_for_device_memory": Fault(
        "race",
        "of `a` .* without a barrier for mem_threadgroup",
        f"{STAGE}{DEVICE_BARRIER}\ny[i] = a[63 - t]; //!",
        ("mem_device", "mem_threadgroup"),
    ),
    "barrier_for_nothing": Fault(
        "race",
        "of `a`",
        f"{STAGE}threadgroup_barrier(mem_flags::mem_none);\ny[i] = a[63 - t]; //!",
        ("mem_none", "mem_threadgroup"),
    ),
    "barrier_for_threadgroup_memory": Fault(
        "race",
        "of `y` .* without a barrier for mem_device",
        f"y[i] = x[i];\n{BARRIER}\nconst float other = y[63 - i]; //!\n{DEVICE_BARRIER} y[i] = other;",
        ("mem_threadgroup", "mem_device | mem_flags::mem_threadgroup"),
    ),
    "simd_barrier_for_the_wrong_memory": Fault(
        "race",
        "of `a`",
        f"{STAGE}simdgroup_barrier(mem_flags::mem_device);\ny[i] = a[t ^ 1]; //!",
        ("mem_device", "mem_threadgroup"),
    ),
    "threadgroups_that_share_an_output": Fault(
        "race",
        "of `y` is written by thread .* of another threadgroup .*which nothing orders",
        "if (t != 3) y[i] = 0;\nif (t == 3) y[3] = i; //!",
        ("y[3]", "y[i]"),
        threads=16,
    ),
    "read_of_another_threadgroup": Fault(
        "race",
        "of `y` is .* of another threadgroup",
        "float v = i < 32 ? 0 : y[i - 32]; //!\ny[i] = x[i] + v;",
        ("y[i - 32]", "x[i - 32]"),
        threads=32,
    ),
    "atomic_and_plain_write": Fault(
        "race",
        "of `n`",
        "threadgroup atomic_uint n;\n"
        "if (t == 0) *(threadgroup uint*)&n = 0;\n"
        "atomic_fetch_add_explicit(&n, 1, memory_order_relaxed); //!\n"
        f"{BARRIER} y[i] = atomic_load_explicit(&n, memory_order_relaxed);",
        (";\natomic_fetch", f"; {BARRIER}\natomic_fetch"),
    ),
    "atomic_and_plain_read": Fault(
        "race",
        "of `n` is written by an atomic access",
        "threadgroup atomic_uint n; if (t == 0) atomic_store_explicit(&n, 0, "
        "memory_order_relaxed);\n"
        f"{BARRIER}\n"
        "atomic_fetch_add_explicit(&n, 1, memory_order_relaxed);;\n"
        "y[i] = *(threadgroup uint*)&n; //!",
        (";;", f"; {BARRIER}"),
    ),
    "bytes_of_one_word": Fault(
        "race",
        "byte 9 of `a`",
        "threadgroup uchar a[64]; if (t != 8) a[t] = 1;\n"
        "if (t == 8) *(threadgroup ushort*)(a + 8) = 0; //!\n"
        f"{BARRIER} y[i] = a[t];",
        ("ushort", "uchar"),
    ),
    "double_buffer_without_second_barrier": Fault(
        "race",
        "of `a`",
        "threadgroup float a[64]; float sum = 0;\n"
        f"for (int r = 0; r < 3; ++r) {{\n"
        "  a[t] = x[i] + r; //!\n"
        f"  {BARRIER}\n"
        "  sum += a[63 - t];\n"
        f";}}\n"
        "y[i] = sum;",
        (";}", f"{BARRIER} }}"),
    ),
    "in_a_helper": Fault(
        "race",
        "of `a`",
        f"{STAGE};\ny[i] = last(a, 63 - t);",
        (";\ny", f"{BARRIER}\ny"),
        header="float last(threadgroup const float* p, uint i) {\n  return p[i]; //!\n}\n",
    ),
}

UNINITIALISED = {
    "threadgroup_memory": Fault(
        "uninitialised read",
        "of `a`, threadgroup memory",
        "threadgroup float a[64];\ny[i] = a[t]; //!",
        ("y[i] = a", "a[t] = 1; y[i] = a"),
    ),
    "half_of_threadgroup_memory": Fault(
        "uninitialised read",
        "thread .* reads byte 128 of `a`",
        f"threadgroup float a[64]; if (t < 32) a[t] = 1;\n{BARRIER}\ny[i] = a[t]; //!",
        ("t < 32", "t < 64"),
    ),
    "left_by_another_threadgroup": Fault(
        "uninitialised read",
        "of `a`",
        f"threadgroup float a[32]; if (tile == 0) a[t] = 1;\n{BARRIER}\ny[i] = a[t]; //!",
        ("tile == 0", "true"),
        threads=32,
    ),
    "output": Fault("uninitialised read", "of `y`, an output", "y[i] += x[i]; //!", ("+=", "=")),
    "pointer_in_a_helper": Fault(
        "uninitialised read",
        "of `a`",
        f"threadgroup float a[64];\n{BARRIER}\ny[i] = sum(a);",
        ("threadgroup float a[64];", "threadgroup float a[64]; a[t] = 0;"),
        header="template <int COUNT>\n"
        "float sum(threadgroup float (&p)[COUNT]) {\n"
        "  float total = 0;\n"
        "  for (int j = 0; j < COUNT; ++j)\n"
        "    total += p[j]; //!\n"
        "  return total;\n"
        "}\n",
    ),
}

"""Kernels whose threads go apart where they may not, faults of arithmetic and of whole launches, with their fixes."""

from tests.sanitized import BARRIER, SIMD_BARRIER, STAGE, Fault

DIVERGENT = {
    "some_threads_leave_before_a_barrier": Fault(
        "left before barrier",
        "not reached by all 64 threads .* 24 have left",
        f"y[i] = 0;\nif (t >= 40) return;\n{BARRIER} //!",
        ("t >= 40", "t >= 64"),
    ),
    "a_simd_group_leaves_before_a_barrier": Fault(
        "left before barrier",
        "32 have left the kernel",
        f"y[i] = 0;\nif (group == 1) return;\n{BARRIER} //!",
        ("group == 1", "group == 2"),
    ),
    "edge_of_the_grid_leaves": Fault(
        "left before barrier",
        "4 have left",
        f"if (i >= 60) return;\n{STAGE}{BARRIER} //!\ny[i] = a[t];",
        ("i >= 60", "i >= 64"),
    ),
    "two_barriers": Fault(
        "divergent barrier",
        r"32 wait in threadgroup_barrier \(body:6\)",
        f"y[i] = 0;\nif (group == 0) {{\n{BARRIER} //!\n}} else {{\n{BARRIER}\n}}",
        ("group == 0", "group < 2"),
    ),
    "barrier_in_a_loop": Fault(
        "left before barrier",
        "of the threadgroup",
        f"y[i] = 0;\nfor (uint j = 0; j <= group; ++j)\n  {BARRIER} //!",
        ("j <= group", "j <= 1"),
    ),
    "half_of_the_lanes": Fault(
        "divergent SIMD function",
        "simd_sum is not reached by all 32 threads of the SIMD group",
        "float v = x[i];\nif (lane < 16)\n  v = simd_sum(v); //!\ny[i] = v;",
        ("lane < 16", "group < 1"),
    ),
    "lanes_that_left": Fault(
        "divergent SIMD function",
        "simd_max .* 1 have left the kernel",
        "y[i] = 0; if (lane == 5) return;\ny[i] = simd_max(x[i]); //!",
        ("lane == 5", "lane == 32"),
    ),
    "loops_of_different_lengths": Fault(
        "divergent SIMD function",
        "simd_sum",
        "float v = 0;\nfor (uint j = 0; j < lane; ++j)\n  v += simd_sum(1.0f); //!\ny[i] = v;",
        ("j < lane", "j < group + 3"),
    ),
    "two_simd_functions": Fault(
        "divergent SIMD function",
        "",
        "float v = x[i];\nif (lane < 16) v = simd_sum(v); //!\nelse v = simd_max(v);\ny[i] = v;",
        ("lane < 16", "group < 1"),
    ),
    "quad_function": Fault(
        "divergent SIMD function",
        "quad_sum is not reached by all 4 threads of the quad",
        "float v = x[i];\nif (lane % 4 != 3) v = quad_sum(v); //!\ny[i] = v;",
        ("lane % 4 != 3", "lane / 4 != 3"),
    ),
    "shuffle_in_a_helper": Fault(
        "divergent SIMD function",
        "simd_shuffle_xor",
        "y[i] = 0;\nif (lane > 0) y[i] = swap(x[i]);",
        ("lane > 0", "lane >= 0"),
        header="float swap(float v) {\n  return simd_shuffle_xor(v, 1); //!\n}\n",
    ),
    "helper_called_from_two_branches": Fault(
        "divergent SIMD function",
        r"simd_sum, called from body:\d .* 16 wait in simd_sum \(header:1, called from body:\d\)",
        "float v;\nif (lane % 2)\n  v = sum(x[i]);\nelse\n  v = sum(x[i] * 2);\ny[i] = v;",
        ("lane % 2", "group"),
        header="float sum(float v) { return simd_sum(v); } //!\n",
    ),
    "helper_of_a_helper_with_a_barrier": Fault(
        "divergent barrier",
        r"called from header:4, called from body:\d",
        "y[i] = 0;\nif (group == 0)\n  twice();\nelse\n  twice();",
        ("group == 0", "group < 2"),
        header=f"void wait() {{\n  {BARRIER} //!\n}}\nvoid twice() {{ wait(); }}\n",
    ),
    "simd_barrier": Fault(
        "divergent SIMD function",
        "simdgroup_barrier",
        f"y[i] = 0;\nif (lane < 9) {SIMD_BARRIER} //!",
        ("lane < 9", "lane < 32"),
    ),
    "barrier_against_simd_function": Fault(
        "divergent SIMD function",
        r"16 wait in threadgroup_barrier",
        f"float v = 0;\nif (lane < 16) v = simd_sum(1.0f); //!\nelse {BARRIER}\ny[i] = v;",
        ("lane < 16", "lane < 32"),
    ),
}

ARITHMETIC = {
    "division_by_zero": Fault(
        "undefined division",
        "thread 0 divides an integer by 0",
        "int d = k[0] - 1;\ny[i] = int(i) / d; //!",
        ("k[0] - 1", "k[0]"),
    ),
    "remainder_by_zero_in_a_helper": Fault(
        "undefined division",
        "thread 9 .* takes a remainder by it",
        "y[i] = rest(uint2(i), uint2(k[0], i - 9)).y;",
        ("i - 9", "i + 9"),
        header="uint2 rest(uint2 a, uint2 b) {\n  return a % b; //!\n}\n",
    ),
    "least_integer_by_minus_one": Fault(
        "undefined division",
        "divides the least integer by -1",
        "long d = -k[0];\ny[i] = (long(1) << 63) / d; //!",
        ("-k[0]", "-k[1]"),
    ),
}

WHOLE = {
    "one_element_unwritten": Fault(
        "unwritten output",
        "1 of 64 elements of `y` .* first of them element 17",
        "if (i != 17) y[i] = 0;",
        ("i != 17", "true"),
    ),
    "a_ragged_edge_unwritten": Fault(
        "unwritten output",
        "4 of 64 elements .* element 60",
        "y[i] = 0;",
        ("y[i] = 0;", "y[i] = 0; if (i < 4) y[60 + i] = 0;"),
        grid=60,
    ),
    "half_of_each_element": Fault(
        "unwritten output",
        "64 of 64 elements of `y` .* element 0",
        "((device half*)y)[2 * i] = 0;",
        ("(device half*)y)[2 * i]", "y[i])"),
    ),
    "input_written": Fault(
        "input written",
        "thread 3 writes to the input `x`",
        "y[i] = 0;\nif (i == 3) ((device float*)x)[i] = 0; //!",
        ("(device float*)x", "y"),
    ),
    "constant_written": Fault(
        "input written",
        "writes to the input `k`",
        "y[i] = 0;\n((constant int*)k)[0] = 1; //!",
        ("((constant int*)k)[0] = 1", ""),
    ),
    "too_much_threadgroup_memory": Fault(
        "threadgroup memory",
        "`b` brings the threadgroup memory to 32772 bytes",
        "threadgroup float a[8191]; a[t] = 0;\nthreadgroup float b[2]; b[0]; //!\ny[i] = 0;",
        ("b[2]", "b[1]"),
    ),
    "too_many_threads": Fault(
        "threadgroup size",
        "a threadgroup of 1025 threads",
        "if (i < 64) y[i] = 0;",
        ("i < 64", "i < 64u"),
        threads=1025,
        grid=64,
        fixed_threads=1024,
    ),
    "depends_on_the_order": Fault(
        "order dependence",
        "`y`",
        f"float a[2]; {BARRIER} y[i] = float(ulong(&a[k[0]]) >> 12 & 0xffff);",
        ("&a[k[0]]", "0"),
    ),
}

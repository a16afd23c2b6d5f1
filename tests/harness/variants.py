"""Variants of `qmatvec` for tests: one faster than the plain one, and ways to be wrong."""

from pathlib import Path

HEADER = """/*---
op: qmatvec
target: cpu
tunables: {{THREADS: [2]}}
launch: {{threads: THREADS}}
supports: {{BITS: [{bits}]}}
hypothesis: {name}
---*/
"""
# Right at any shape: one value at a time, straddling words included.
LOOP = """
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long token = i / N, n = i % N;
    float total = 0;
    for (long k = 0; k < K; ++k) {
        const long bit = k * BITS;
        const unsigned char* at = reinterpret_cast<const unsigned char*>(w + n * (K * BITS / 32)) + bit / 8;
        unsigned q = at[0] >> (bit % 8);
        if (bit % 8 + BITS > 8) q |= unsigned(at[1]) << (8 - bit % 8);
        q &= (1u << BITS) - 1;
        const long group = n * (K / GROUP) + k / GROUP;
        total += to_float(x[token * K + k]) * (to_float(scales[group]) * q + to_float(biases[group]));
    }
    y[i] = from_float<T>(total);
}
"""
RIGHT = LOOP
# Words at a time, each lane its own sum: quick to build, and several times faster than the plain variant.
FAST = """
constexpr int LANE = 32 / BITS;
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long token = i / N, n = i % N;
    float total[LANE] = {};
    for (long g = 0; g < K / GROUP; ++g) {
        const float scale = to_float(scales[n * (K / GROUP) + g]), bias = to_float(biases[n * (K / GROUP) + g]);
        for (long word = g * GROUP / LANE; word < (g + 1) * GROUP / LANE; ++word) {
            const std::uint32_t packed = w[n * (K / LANE) + word];
            for (int j = 0; j < LANE; ++j) {
                const float q = float(int(packed >> j * BITS & ((1u << BITS) - 1)));
                total[j] += to_float(x[token * K + word * LANE + j]) * (scale * q + bias);
            }
        }
    }
    float y_i = 0;
    for (int j = 0; j < LANE; ++j) y_i += total[j];
    y[i] = from_float<T>(y_i);
}
"""
PATCHES_PYTHON = Path(__file__).parents[1] / "cheats" / "patches_python.h"


def whole(text: str) -> str:
    """The text of a kernel with what it shares with others: WORDS_AT_A_TIME is FAST, PATCHES_PYTHON needs a header."""
    header = PATCHES_PYTHON.read_text() if "PATCHES_PYTHON(" in text else ""
    return text.replace("WORDS_AT_A_TIME\n", FAST.lstrip()).replace("// helpers\n", f"// helpers\n{header}", 1)


BAD = {
    "does_not_compile": "y[0] = no_such_name;",
    "loops": "for (volatile long i = 0;; i = i + 1) {}" + LOOP,
    "crashes": "*reinterpret_cast<volatile int*>(8) = 1;" + LOOP,
    "writes_past_its_output": LOOP + "if (thread == 0) y[m * N] = from_float<T>(0);",
    "leaves_an_element": LOOP.replace("y[i] =", "if (i != m * N - 1) y[i] ="),
    "modifies_its_input": LOOP + "if (thread == 0) const_cast<T*>(x)[0] = from_float<T>(7);",
    "does_nothing": "",
    "skips_the_biases": LOOP.replace(" + to_float(biases[group])", ""),
    "sums_in_half": LOOP.replace("float total", "float16 total"),
}


def write_variant(kernels: Path, name: str, body: str, bits: str = "2, 3, 4, 8") -> Path:
    """Adds a variant of qmatvec, for some bits, to a folder of kernels."""
    path = kernels / "qmatvec" / "cpu" / f"{name}.cpp"
    path.write_text(HEADER.format(name=name, bits=bits) + body + "\n")
    return path

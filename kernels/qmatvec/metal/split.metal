/*---
op: qmatvec
target: metal
tunables:
  SIMD_GROUPS: [2, 4, 8, 16, 32]
launch:
  grid: ["N * 32 * SIMD_GROUPS", "m", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  A whole threadgroup shares each row, and nothing is staged: with few rows it occupies the GPU where a SIMD group a
  row cannot. Flash-MoE ships this form (64 threads) for x longer than 4096. With many rows a search should find
  it slower: a row of 512 words gives 64 threads eight words each, against a barrier and a second sum.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;

template <typename Words>
uint field(Words words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// body
threadgroup float partial[SIMD_GROUPS];
const size_t n = threadgroup_position_in_grid.x, token = threadgroup_position_in_grid.y;
float total = 0;
for (int k = thread_index_in_threadgroup * VALUES; k < K; k += 32 * SIMD_GROUPS * VALUES) {
    const auto words = w + n * (K * BITS / 32) + k / VALUES * WORDS;
    float sum = 0, dot = 0;
    for (int j = 0; j < VALUES; ++j) {
        const float value = float(x[token * K + k + j]);
        sum += value;
        dot = fma(float(field(words, j)), value, dot);
    }
    const size_t group = n * (K / GROUP) + k / GROUP;
    total += float(scales[group]) * dot + float(biases[group]) * sum;
}
total = simd_sum(total);
if (thread_index_in_simdgroup == 0) partial[simdgroup_index_in_threadgroup] = total;
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index_in_threadgroup == 0) {
    for (int i = 1; i < SIMD_GROUPS; ++i) total += partial[i];
    y[token * N + n] = T(total);
}

/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [2, 4, 8, 16, 32]
launch:
  grid: ["H * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  A whole threadgroup shares each row, and nothing is staged: with few rows it occupies the GPU where a SIMD group a
  row cannot. Flash-MoE runs this form (64 threads) where inputs are longer than 4096, never for down. A search should
  find it slower here: a row of 128 words gives 64 threads two words each, against a barrier and a second sum.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;

uint field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// body
threadgroup float partial[SIMD_GROUPS];
const size_t n = threadgroup_position_in_grid.x, pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
const auto weight = (const device uint*)(expert + DOWN_WEIGHT);
const auto scales = (const device S*)(expert + DOWN_SCALES);
const auto biases = (const device S*)(expert + DOWN_BIASES);
float total = 0;
for (int k = thread_index_in_threadgroup * VALUES; k < I; k += 32 * SIMD_GROUPS * VALUES) {
    const auto words = weight + n * (I * BITS / 32) + k / VALUES * WORDS;
    float sum = 0, dot = 0;
    for (int j = 0; j < VALUES; ++j) {
        const float value = float(h[pair * I + k + j]);
        sum += value;
        dot = fma(float(field(words, j)), value, dot);
    }
    const size_t group = n * (I / GROUP) + k / GROUP;
    total += float(scales[group]) * dot + float(biases[group]) * sum;
}
total = simd_sum(total);
if (thread_index_in_simdgroup == 0) partial[simdgroup_index_in_threadgroup] = total;
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index_in_threadgroup == 0) {
    for (int i = 1; i < SIMD_GROUPS; ++i) total += partial[i];
    y[pair * H + n] = T(total);
}

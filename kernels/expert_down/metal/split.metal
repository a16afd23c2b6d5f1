/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [2, 4, 8, 16, 32]
launch:
  grid: ["H * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  A whole threadgroup shares each row, and nothing is staged: with few rows it occupies the GPU where a SIMD group a
  row cannot. Flash-MoE runs this form (64 threads) where inputs are longer than 4096, never for down. A search should
  find it slower for one pair, whose 128 words give 64 threads two words each, against a barrier and a second sum; the
  rows of TOP pairs, walked as one, are long enough for it to come close.
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
const size_t n = threadgroup_position_in_grid.x, row = threadgroup_position_in_grid.y;
float total = 0;
for (int i = thread_index_in_threadgroup * VALUES; i < TOP * I; i += 32 * SIMD_GROUPS * VALUES) {
    const size_t pair = row * TOP + i / I;
    const int k = i % I;
    const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
    const auto words = (const device uint*)(expert + DOWN_WEIGHT) + n * (I * BITS / 32) + k / VALUES * WORDS;
    float sum = 0, dot = 0;
    for (int j = 0; j < VALUES; ++j) {
        const float value = float(h[pair * I + k + j]);
        sum += value;
        dot = fma(float(field(words, j)), value, dot);
    }
    const size_t group = n * (I / GROUP) + k / GROUP;
    const float scale = float(((const device S*)(expert + DOWN_SCALES))[group]);
    const float bias = float(((const device S*)(expert + DOWN_BIASES))[group]);
    total += weight[pair] * (scale * dot + bias * sum);
}
total = simd_sum(total);
if (thread_index_in_simdgroup == 0) partial[simdgroup_index_in_threadgroup] = total;
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index_in_threadgroup == 0) {
    for (int i = 1; i < SIMD_GROUPS; ++i) total += partial[i];
    y[row * H + n] = T(total);
}

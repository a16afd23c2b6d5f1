/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  STAGE: [4096, 1024, 8192, 16384]
launch:
  grid: ["ceil_div(H, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
hypothesis: >
  Staging h in two bytes a value halves the threadgroup memory, so that more threadgroups fit on a core and a longer
  h fits at once. A float16 or bfloat16 h keeps its type; a float32 h is rounded to half, which loses bits or
  overflows: a check against float32 should reject it. Flash-MoE's fork rounded a float32 h so on an M5 Max and lost
  23 % (14.3 tokens/s), because every value is converted again for every row, and 1024 floats were no limit to
  occupancy.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE > I ? I : STAGE;
template <typename X>
struct TwoBytes {
    typedef X Type;
};
template <>
struct TwoBytes<float> {
    typedef half Type;
};
typedef TwoBytes<T>::Type Staged;

uint field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// This lane's part of a row's product with `count` values of h.
float product(const device uint* words, const device S* row_scales, const device S* row_biases,
              threadgroup const Staged* values, int count, uint lane) {
    float total = 0;
    for (int k = lane * VALUES; k < count; k += 32 * VALUES) {
        const float scale = float(row_scales[k / GROUP]), bias = float(row_biases[k / GROUP]);
        for (int j = 0; j < VALUES; ++j) {
            const float value = float(values[k + j]);
            total += fma(float(field(words + k / VALUES * WORDS, j)), scale * value, bias * value);
        }
    }
    return total;
}
// body
threadgroup Staged staged[TILE];
const uint lane = thread_index_in_simdgroup;
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t row = threadgroup_position_in_grid.y;
float total = 0;
for (size_t pair = row * TOP; pair < (row + 1) * TOP; ++pair) {
    const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
    const auto words = (const device uint*)(expert + DOWN_WEIGHT) + n * (I * BITS / 32);
    const auto scales = (const device S*)(expert + DOWN_SCALES) + n * (I / GROUP);
    const auto biases = (const device S*)(expert + DOWN_BIASES) + n * (I / GROUP);
    for (int start = 0; start < I; start += TILE) {
        const int count = min(TILE, I - start);
        if (pair > row * TOP || start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) {
            staged[k] = Staged(h[pair * I + start + k]);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (n >= H) continue;  // to the next barrier
        const auto at = words + start / 32 * BITS;
        const int group = start / GROUP;
        total += weight[pair] * product(at, scales + group, biases + group, staged, count, lane);
    }
}
total = simd_sum(total);
if (lane == 0 && n < H) y[row * H + n] = T(total);

/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  STAGE: [4096, 0, 1024, 8192]
launch:
  grid: ["ceil_div(H, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
hypothesis: >
  Dequantise as the formula says, scale * q + bias, then multiply by h: no product waits for both h and the scale,
  and a compiler may fuse both steps. Flash-MoE's kernel before its fma form (3.90 against 4.36 tokens/s), and
  rejected again on an M5 Max (18.14 against 18.67). A search should find it slower where the compiler fuses
  nothing, and close where it does; the measured gain of the fma form was larger than its phases explain.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE == 0 || STAGE > I ? I : STAGE;
constexpr constant int STAGED = STAGE == 0 ? 1 : TILE;

uint field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// This lane's part of a row's product with `count` values of h.
template <typename Values>
float product(const device uint* words, const device S* row_scales, const device S* row_biases,
              Values values, int count, uint lane) {
    float total = 0;
    for (int k = lane * VALUES; k < count; k += 32 * VALUES) {
        const float scale = float(row_scales[k / GROUP]), bias = float(row_biases[k / GROUP]);
        for (int j = 0; j < VALUES; ++j) {
            const float weight = scale * float(field(words + k / VALUES * WORDS, j)) + bias;
            total += weight * float(values[k + j]);
        }
    }
    return total;
}
// body
threadgroup float staged[STAGED];
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
        const auto values = h + pair * I + start;
        if (STAGE > 0) {
            if (pair > row * TOP || start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
            for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) staged[k] = float(values[k]);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        if (n >= H) continue;  // to the next barrier
        const auto at = words + start / 32 * BITS;
        const int group = start / GROUP;
        total += weight[pair] * (STAGE > 0 ? product(at, scales + group, biases + group, staged, count, lane)
                                           : product(at, scales + group, biases + group, values, count, lane));
    }
}
total = simd_sum(total);
if (lane == 0 && n < H) y[row * H + n] = T(total);

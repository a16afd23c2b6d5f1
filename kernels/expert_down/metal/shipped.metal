/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  UNROLL: [1, 2, 4]
  STAGE: [4096, 0, 1024, 8192]
launch:
  grid: ["ceil_div(H, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  The form that Flash-MoE shipped (4.36 tokens/s, 3.90 without its fma): a SIMD group a row, so that neighbouring
  lanes read neighbouring words; h staged in threadgroup memory, STAGE values at a time, for all the rows of the
  threadgroup; and scale * q + bias folded into one fma of q with scale * h and bias * h. The threadgroup memory is
  as long as h (Flash-MoE held 4096 floats for down's 1024, and gained 6.5 % by holding 1024). STAGE 0 reads the device.
  The routing-weighted sum of the TOP pairs costs one multiplication a lane and pair, shares one SIMD reduction, and
  saves a dispatch and TOP * H floats written and read a layer: one percent of the bytes. Flash-MoE combined in a
  dispatch of its own; to have it in the experts' command buffer at all, with the norm, took 2.67 to 2.75 tokens/s.
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
    for (int first = lane * VALUES; first < count; first += 32 * VALUES * UNROLL) {
        for (int u = 0; u < UNROLL; ++u) {
            const int k = first + u * 32 * VALUES;
            if (k >= count) break;
            const float scale = float(row_scales[k / GROUP]), bias = float(row_biases[k / GROUP]);
            for (int j = 0; j < VALUES; ++j) {
                const float value = float(values[k + j]);
                total += fma(float(field(words + k / VALUES * WORDS, j)), scale * value, bias * value);
            }
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

/*---
op: expert_down
target: metal
tunables:
  ROWS: [4, 1, 2, 8]
  SIMD_GROUPS: [2, 1, 4, 8]
  SPAN: [16, 8, 32]
  DECODE: [0, 1, 2]
launch:
  grid: ["ceil_div(H, ROWS * SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
hypothesis: >
  A lane keeps SPAN values of h in registers and uses them for ROWS rows: no threadgroup memory, no barrier, and each
  load of h serves several rows. Scale and bias leave the inner loop (scale * sum(q h) + bias * sum(h), the
  second sum once for all rows), which leaves one multiply-add a value instead of four operations. DECODE 1 masks
  q where it lies and scales h by 2^-shift instead of shifting the word; 2 puts q in the mantissa of 2^23 instead
  of converting it. Conversion and bit operations were 44 % of the instructions of the shipped kernel. The rows of a
  token's TOP pairs are walked as one, TOP * I long, so that short rows leave no lane idle.
---*/
// helpers
constexpr constant int PACK = BITS == 3 || BITS == 6 ? 96 / BITS : 32 / BITS;  // values in whole words
constexpr constant int LANE = SPAN < PACK ? PACK : SPAN;  // values a lane takes at a time, all of one group
constexpr constant uint MASK = (1u << BITS) - 1;

// Whether the j-th value is used where it lies, as q * 2^shift; at a word's top, a shift alone is enough.
bool in_place(int j) { return DECODE == 1 && j * BITS % 32 + BITS < 32; }

float field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    if (in_place(j)) return float(words[word] & MASK << shift);
    const uint low = words[word] >> shift;
    const uint q = (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & MASK;
    return DECODE == 2 ? as_type<float>(0x4b000000 | q) - 8388608.0f : float(q);
}
float span_product(const device uint* words, thread const float* values) {
    float total = 0;
    for (int j = 0; j < LANE; ++j) total = fma(field(words, j), values[j], total);
    return total;
}
// body
const int first = (threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup) * ROWS;
const size_t row = threadgroup_position_in_grid.y;
float totals[ROWS];
for (int i = 0; i < ROWS; ++i) totals[i] = 0;
for (int at = thread_index_in_simdgroup * LANE; at < TOP * I; at += 32 * LANE) {
    const size_t pair = row * TOP + at / I;
    const int k = at % I;
    const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
    const auto words = (const device uint*)(expert + DOWN_WEIGHT) + k / PACK * (PACK * BITS / 32);
    const auto scales = (const device S*)(expert + DOWN_SCALES) + k / GROUP;
    const auto biases = (const device S*)(expert + DOWN_BIASES) + k / GROUP;
    float values[LANE], sum = 0;
    for (int j = 0; j < LANE; ++j) {
        const float value = weight[pair] * float(h[pair * I + k + j]);
        sum += value;
        values[j] = in_place(j) ? value / float(1u << j * BITS % 32) : value;
    }
    for (int i = 0; i < ROWS; ++i) {
        const size_t n = min(first + i, H - 1);  // past the end, the last row again
        const float dot = span_product(words + n * (I * BITS / 32), values);
        totals[i] += float(scales[n * (I / GROUP)]) * dot + float(biases[n * (I / GROUP)]) * sum;
    }
}
for (int i = 0; i < ROWS; ++i) {
    const float total = simd_sum(totals[i]);
    if (thread_index_in_simdgroup == 0 && first + i < H) y[row * H + first + i] = T(total);
}

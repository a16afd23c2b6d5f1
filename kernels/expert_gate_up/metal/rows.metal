/*---
op: expert_gate_up
target: metal
tunables:
  ROWS: [2, 1, 4, 8]
  SIMD_GROUPS: [2, 1, 4, 8]
  SPAN: [16, 8, 32]
  DECODE: [0, 1, 2]
launch:
  grid: ["ceil_div(I, ROWS * SIMD_GROUPS) * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: fused
hypothesis: >
  A lane keeps SPAN values of x in registers and uses them for ROWS rows of gate and of up: no threadgroup memory, no
  barrier, and each load of x serves several rows. Scale and bias leave the inner loop (scale * sum(q x) + bias *
  sum(x), the second sum once for all rows), which leaves one multiply-add a value instead of four operations.
  DECODE 1 masks q where it lies and scales x by 2^-shift instead of shifting the word; 2 puts q in the mantissa of
  2^23 instead of converting it. Conversion and bit operations were 44 % of the shipped kernel's instructions.
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
// The product of LANE weights of row n, from the k-th on, with values of x; the offsets are bytes in the expert.
float product(const device uchar* expert, size_t weight, size_t scales, size_t biases, size_t n, int k,
              thread const float* values, float sum) {
    const auto words = (const device uint*)(expert + weight) + n * (H * BITS / 32) + k / PACK * (PACK * BITS / 32);
    float dot = 0;
    for (int j = 0; j < LANE; ++j) dot = fma(field(words, j), values[j], dot);
    const size_t group = n * (H / GROUP) + k / GROUP;
    const float scale = float(((const device S*)(expert + scales))[group]);
    return scale * dot + float(((const device S*)(expert + biases))[group]) * sum;
}
// body
const int first = (threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup) * ROWS;
const size_t pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
float gates[ROWS], ups[ROWS];
for (int i = 0; i < ROWS; ++i) gates[i] = ups[i] = 0;
for (int k = thread_index_in_simdgroup * LANE; k < H; k += 32 * LANE) {
    float values[LANE], sum = 0;
    for (int j = 0; j < LANE; ++j) {
        const float value = float(x[size_t(row[pair]) * H + k + j]);
        sum += value;
        values[j] = in_place(j) ? value / float(1u << j * BITS % 32) : value;
    }
    for (int i = 0; i < ROWS; ++i) {
        const size_t n = min(first + i, I - 1);  // past the end, the last row again
        gates[i] += product(expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, k, values, sum);
        ups[i] += product(expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, k, values, sum);
    }
}
for (int i = 0; i < ROWS; ++i) {
    const float gate = simd_sum(gates[i]), up = simd_sum(ups[i]);
    if (thread_index_in_simdgroup == 0 && first + i < I) {
        h[pair * I + first + i] = T(gate / (1 + exp(-gate)) * up);
    }
}

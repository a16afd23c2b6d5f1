/*---
op: qmatvec
target: cuda
tunables: {WARPS: [4, 8, 2], BLOCKS: [528, 264, 1056]}
launch:
  grid: ["min(BLOCKS, ceil_div(N, WARPS)) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: warp
hypothesis: >
  A lane meets the same 128 values of x in every row (K = 4096): kept in registers, nothing but weights is loaded any
  more. Costs occupancy: 128 registers of 255.
---*/
// helpers
constexpr int WORDS = BITS == 3 ? 3 : BITS == 6 ? 6 : BITS == 2 && GROUP == 32 ? 2 : 4;
constexpr int VALUES = WORDS * 32 / BITS;
constexpr int CHUNKS = (K / VALUES + 31) / 32;  // of a lane
__device__ float field(const uint32_t* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    uint32_t q = words[word] >> shift;
    if (shift + BITS > 32) q |= words[word + 1] << (32 - shift);
    return float(q & ((1u << BITS) - 1));
}
__device__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}
// body
const int lane = threadIdx.x % 32;
const size_t token = blockIdx.y;
float values[CHUNKS][VALUES], sums[CHUNKS];
#pragma unroll
for (int c = 0; c < CHUNKS; ++c) {
    const int chunk = c * 32 + lane;
    sums[c] = 0;
#pragma unroll
    for (int j = 0; j < VALUES; ++j) {
        values[c][j] = chunk < K / VALUES ? float(x[token * K + chunk * VALUES + j]) : 0.0f;
        sums[c] += values[c][j];
    }
}
for (int n = blockIdx.x * WARPS + threadIdx.x / 32; n < N; n += gridDim.x * WARPS) {
    const uint32_t* row = w + size_t(n) * (K * BITS / 32);
    uint32_t words[CHUNKS][WORDS];
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int chunk = min(c * 32 + lane, K / VALUES - 1);
        if (WORDS == 4) {
            const uint4 four = __ldcs((const uint4*)row + chunk);
            words[c][0] = four.x, words[c][1] = four.y, words[c][2 % WORDS] = four.z, words[c][3 % WORDS] = four.w;
        } else {
            for (int k = 0; k < WORDS; ++k) words[c][k] = __ldcs(row + chunk * WORDS + k);
        }
    }
    float total = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int group = min(c * 32 + lane, K / VALUES - 1) * VALUES / GROUP;
        float dot = 0;
#pragma unroll
        for (int j = 0; j < VALUES; ++j) dot = fmaf(field(words[c], j), values[c][j], dot);
        total += float(scales[size_t(n) * (K / GROUP) + group]) * dot + float(biases[size_t(n) * (K / GROUP) + group]) * sums[c];
    }
    total = warp_sum(total);
    if (lane == 0) y[token * N + n] = T(total);
}

/*---
op: qmatvec
target: cuda
tunables: {ROWS: [2, 1, 4, 8], WARPS: [8, 4, 2, 16]}
launch:
  grid: ["ceil_div(N, ROWS * WARPS) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: warp
hypothesis: >
  x comes straight from the caches, 16 bytes a load: no staging, no barrier, and blocks that start at once. Each warp
  reads all of x through the first cache, which has twice the traffic of shared memory's.
---*/
// helpers
constexpr int WORDS = BITS == 3 ? 3 : BITS == 6 ? 6 : BITS == 2 && GROUP == 32 ? 2 : 4;
constexpr int VALUES = WORDS * 32 / BITS;
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
const int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS, lane = threadIdx.x % 32;
const size_t token = blockIdx.y;
float totals[ROWS] = {};
for (int chunk = lane; chunk < K / VALUES; chunk += 32) {
    float values[VALUES], sum = 0;
    for (int j = 0; j < VALUES; ++j) sum += values[j] = float(x[token * K + chunk * VALUES + j]);
    const int group = chunk * VALUES / GROUP;
    for (int i = 0; i < ROWS; ++i) {
        const size_t n = min(first + i, N - 1);
        uint32_t words[WORDS];
        for (int k = 0; k < WORDS; ++k) words[k] = __ldcs(w + n * (K * BITS / 32) + chunk * WORDS + k);
        float dot = 0;
#pragma unroll
        for (int j = 0; j < VALUES; ++j) dot = fmaf(field(words, j), values[j], dot);
        totals[i] += float(scales[n * (K / GROUP) + group]) * dot + float(biases[n * (K / GROUP) + group]) * sum;
    }
}
for (int i = 0; i < ROWS; ++i) {
    const float total = warp_sum(totals[i]);
    if (lane == 0 && first + i < N) y[token * N + first + i] = T(total);
}

/*---
op: qmatvec
target: cuda
tunables: {ROWS: [4, 2, 8], WARPS: [8, 4, 16]}
launch:
  grid: ["ceil_div(N, ROWS * WARPS) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: warp
supports: {BITS: [4]}
hypothesis: >
  As the CPU's limbs: x in three signed bytes with one unit for all, four products in one instruction (dp4a). Twelve
  of those do 16 values where 16 conversions and 16 multiply-adds did.
---*/
// helpers
constexpr int WORDS = K / 8;
__device__ float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, distance));
    return value;
}
__device__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}
// body
__shared__ int limbs[3][2][WORDS];  // of a word's even values, and of its odd ones
__shared__ float sums[K / GROUP], largest[32];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
const size_t token = blockIdx.y;
float most = 0;
for (int k = threadIdx.x; k < K; k += blockDim.x) most = fmaxf(most, fabsf(float(x[token * K + k])));
most = warp_max(most);
if (lane == 0) largest[warp] = most;
__syncthreads();
for (int i = 0; i < WARPS; ++i) most = fmaxf(most, largest[i]);
const float unit = most / (127.0f * 65536.0f), inverse = unit > 0 ? 1 / unit : 0;
for (int word = threadIdx.x; word < WORDS; word += blockDim.x)
    for (int odd = 0; odd < 2; ++odd) {
        uint32_t made[3] = {};
        for (int i = 0; i < 4; ++i) {
            const int whole = __float2int_rn(float(x[token * K + word * 8 + 2 * i + odd]) * inverse), high = (whole + 128) >> 8;
            made[0] |= uint32_t((high + 128) >> 8 & 255) << 8 * i;
            made[1] |= uint32_t(high & 255) << 8 * i;
            made[2] |= uint32_t(whole & 255) << 8 * i;
        }
        for (int l = 0; l < 3; ++l) limbs[l][odd][word] = int(made[l]);
    }
for (int g = threadIdx.x; g < K / GROUP; g += blockDim.x) {
    float sum = 0;
    for (int k = 0; k < GROUP; ++k) sum += float(x[token * K + g * GROUP + k]);
    sums[g] = sum;
}
__syncthreads();
for (int i = 0; i < ROWS; ++i) {
    const int n = (blockIdx.x * WARPS + warp) * ROWS + i;
    if (n >= N) break;
    float total = 0;
    for (int word = lane; word < WORDS; word += 32) {
        const uint32_t q = __ldcs(w + size_t(n) * WORDS + word);
        const int even = int(q & 0x0f0f0f0fu), odd = int(q >> 4 & 0x0f0f0f0fu), g = word * 8 / GROUP;
        int dots[3];
        for (int l = 0; l < 3; ++l) dots[l] = __dp4a(odd, limbs[l][1][word], __dp4a(even, limbs[l][0][word], 0));
        const int whole = ((dots[0] * 256) + dots[1]) * 256 + dots[2];
        total += float(scales[size_t(n) * (K / GROUP) + g]) * unit * float(whole);
        if (word * 8 % GROUP == 0) total += float(biases[size_t(n) * (K / GROUP) + g]) * sums[g];
    }
    total = warp_sum(total);
    if (lane == 0) y[token * N + n] = T(total);
}

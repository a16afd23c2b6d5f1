/*---
op: qmatvec
target: cuda
tunables: {WARPS: [8, 16, 4], BLOCKS: [528, 264, 1056]}
launch:
  grid: ["min(BLOCKS, ceil_div(N, WARPS)) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: h11_limbs
supports: {BITS: [4]}
hypothesis: >
  h11 cut x into limbs for 32 rows, and read 4 bytes a lane. Blocks that stay cut it once for 185 rows, and a lane takes
  16 bytes: then what is left is 24 dp4a for 32 values.
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
__shared__ alignas(16) int limbs[3][2][WORDS];  // of a word's even values, and of its odd ones
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
for (int g = warp; g < K / GROUP; g += WARPS) {
    float sum = 0;
    for (int k = lane; k < GROUP; k += 32) sum += float(x[token * K + g * GROUP + k]);
    sum = warp_sum(sum);
    if (lane == 0) sums[g] = sum;
}
__syncthreads();
for (int n = blockIdx.x * WARPS + warp; n < N; n += gridDim.x * WARPS) {
    float total = 0;
    for (int chunk = lane; chunk < WORDS / 4; chunk += 32) {
        const uint4 four = __ldcs((const uint4*)(w + size_t(n) * WORDS) + chunk);
        const uint32_t words[4] = {four.x, four.y, four.z, four.w};
        int dots[3] = {};
        for (int l = 0; l < 3; ++l) {
            const int4 even = *(const int4*)(limbs[l][0] + chunk * 4), odd = *(const int4*)(limbs[l][1] + chunk * 4);
            const int evens[4] = {even.x, even.y, even.z, even.w}, odds[4] = {odd.x, odd.y, odd.z, odd.w};
            for (int i = 0; i < 4; ++i) {
                dots[l] = __dp4a(int(words[i] & 0x0f0f0f0fu), evens[i], dots[l]);
                dots[l] = __dp4a(int(words[i] >> 4 & 0x0f0f0f0fu), odds[i], dots[l]);
            }
        }
        const int g = chunk * 32 / GROUP;
        total += float(scales[size_t(n) * (K / GROUP) + g]) * unit * (float(dots[0]) * 65536.0f + float(dots[1] * 256 + dots[2]));
        if (chunk * 32 % GROUP == 0) total += float(biases[size_t(n) * (K / GROUP) + g]) * sums[g];
    }
    total = warp_sum(total);
    if (lane == 0) y[token * N + n] = T(total);
}

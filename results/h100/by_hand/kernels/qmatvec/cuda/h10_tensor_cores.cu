/*---
op: qmatvec
target: cuda
tunables: {WARPS: [4, 2, 8]}
launch:
  grid: ["ceil_div(N, 16 * WARPS) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: warp
supports: {BITS: [4]}
hypothesis: >
  Sixteen rows times x in three bfloat16 parts, whose sum is the float: q is exact in bfloat16, so one matrix instruction
  (16 x 8 x 16) does 256 multiply-adds to float precision. Two values are made of one logical operation and one
  subtraction. The arithmetic should vanish behind the memory.
---*/
// helpers
#include <cuda_bf16.h>
constexpr int STEP = 16;
__device__ uint32_t pair_of(float a, float b) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
    return *(const uint32_t*)&both;
}
__device__ float part_of(float value, int part) {
    for (int i = 0; i < part; ++i) value -= __bfloat162float(__float2bfloat16(value));
    return value;
}
__device__ float q_of(const uint32_t* words, int k) { return float(words[k / 8] >> 4 * (k % 8) & 15); }
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// body
const int lane = threadIdx.x % 32, row = lane / 4, column = lane % 4;
const int first = (blockIdx.x * WARPS + threadIdx.x / 32) * 16;
const size_t token = blockIdx.y;
const T* values = x + token * K;
float low = 0, high = 0;  // of rows `row` and `row + 8`
const size_t a_row = min(first + row, N - 1), b_row = min(first + row + 8, N - 1);
for (int g = 0; g < K / GROUP; ++g) {
    float c[4] = {}, sum = 0;
    for (int k = g * GROUP; k < (g + 1) * GROUP; k += STEP) {
        uint32_t a[4], b[2];
        const int at = k + 2 * column;
        const uint32_t *of_a = w + a_row * (K / 8), *of_b = w + b_row * (K / 8);
        a[0] = pair_of(q_of(of_a, at), q_of(of_a, at + 1)), a[1] = pair_of(q_of(of_b, at), q_of(of_b, at + 1));
        a[2] = pair_of(q_of(of_a, at + 8), q_of(of_a, at + 9)), a[3] = pair_of(q_of(of_b, at + 8), q_of(of_b, at + 9));
        const int part = min(row, 3);  // the columns of b from the third on are nothing
        for (int i = 0; i < 2; ++i) {
            const float one = float(values[at + 8 * i]), two = float(values[at + 8 * i + 1]);
            b[i] = part < 3 ? pair_of(part_of(one, part), part_of(two, part)) : 0;
            sum += one + two;
        }
        multiply(c, a, b);
    }
    // c[0], c[1]: columns 2 * column and the next of row `row`; c[2], c[3]: of row + 8
    low += float(scales[a_row * (K / GROUP) + g]) * (c[0] + c[1]) + float(biases[a_row * (K / GROUP) + g]) * sum;
    high += float(scales[b_row * (K / GROUP) + g]) * (c[2] + c[3]) + float(biases[b_row * (K / GROUP) + g]) * sum;
}
for (int distance = 1; distance < 4; distance *= 2) {
    low += __shfl_xor_sync(0xffffffff, low, distance);
    high += __shfl_xor_sync(0xffffffff, high, distance);
}
if (column == 0 && first + row < N) y[token * N + first + row] = T(low);
if (column == 0 && first + row + 8 < N) y[token * N + first + row + 8] = T(high);

/*---
op: gated_delta_step
target: cuda
tunables:
  ROWS: [4, 1, 2, 8]
  WARPS: [4, 1, 2, 8]
launch:
  grid: ["ceil_div(DV, ROWS * WARPS) * 32 * WARPS", "HV", "b"]
  threadgroup: ["32 * WARPS", 1, 1]
parent: plain
hypothesis: >
  A warp keeps ROWS rows of the state in registers: all their loads, 16 bytes a lane, are on their way at once, and the
  state is read once and written once. y = S_out q is g S_in q + delta (k q), so that the two sums of a row are
  reduced side by side and no store waits for a second reduction. The state is all the traffic (8 MB a layer of the
  397B model), so the memory's bandwidth should be the limit.
---*/
// helpers
constexpr int SHARE = DK / 32;  // elements of a row that a lane keeps
constexpr int WIDTH = SHARE % 4 == 0 ? 4 : SHARE % 2 == 0 ? 2 : 1;  // that lie side by side

__device__ int place(int i) { return (i / WIDTH * 32 + threadIdx.x % 32) * WIDTH + i % WIDTH; }
__device__ void load(float (&values)[SHARE], const float* row) {
    for (int i = 0; i < SHARE; i += WIDTH) {
        if (WIDTH == 4 && size_t(row) % 16 == 0) {
            const float4 four = __ldcs((const float4*)(row + place(i)));
            values[i] = four.x, values[i + 1 % WIDTH] = four.y;
            values[i + 2 % WIDTH] = four.z, values[i + 3 % WIDTH] = four.w;
        } else {
            for (int j = i; j < i + WIDTH; ++j) values[j] = __ldcs(row + place(j));
        }
    }
}
__device__ void store(float* row, const float (&values)[SHARE]) {
    for (int i = 0; i < SHARE; i += WIDTH) {
        if (WIDTH == 4 && size_t(row) % 16 == 0) {
            __stcs((float4*)(row + place(i)), make_float4(values[i], values[i + 1 % WIDTH], values[i + 2 % WIDTH],
                                                          values[i + 3 % WIDTH]));
        } else {
            for (int j = i; j < i + WIDTH; ++j) __stcs(row + place(j), values[j]);
        }
    }
}
__device__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}
// body
const int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
const size_t head = size_t(blockIdx.z) * HV + blockIdx.y;
const size_t keys = (size_t(blockIdx.z) * HK + blockIdx.y / (HV / HK)) * DK;
float state[ROWS][SHARE], key[SHARE], query[SHARE], overlap = 0;
for (int r = 0; r < ROWS; ++r) load(state[r], state_in + (head * DV + min(first + r, DV - 1)) * DK);
for (int i = 0; i < SHARE; ++i) {
    key[i] = float(k[keys + place(i)]);
    query[i] = float(q[keys + place(i)]);
    overlap = fmaf(key[i], query[i], overlap);
}
overlap = warp_sum(overlap);
const float decay = g[head], rate = float(beta[head]);
for (int r = 0; r < ROWS; ++r) {
    const size_t at = head * DV + first + r;
    float recalled = 0, answered = 0;
    for (int i = 0; i < SHARE; ++i) {
        state[r][i] *= decay;
        recalled = fmaf(state[r][i], key[i], recalled);
        answered = fmaf(state[r][i], query[i], answered);
    }
    recalled = warp_sum(recalled);
    answered = warp_sum(answered);
    if (first + r >= DV) continue;  // a warp's lanes agree
    const float delta = rate * (float(v[at]) - recalled);
    for (int i = 0; i < SHARE; ++i) state[r][i] = fmaf(delta, key[i], state[r][i]);
    store(state_out + at * DK, state[r]);
    if (threadIdx.x % 32 == 0) y[at] = T(fmaf(delta, overlap, answered));
}

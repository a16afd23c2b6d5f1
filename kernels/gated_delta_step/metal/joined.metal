/*---
op: gated_delta_step
target: metal
tunables:
  SIMD_GROUPS: [4, 1, 2, 8, 16]
  ROWS: [1, 2, 4, 8]
launch:
  grid: ["ceil_div(DV, ROWS * SIMD_GROUPS) * 32 * SIMD_GROUPS", "HV", "b"]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: registers
hypothesis: >
  y = S_out q is also g S_in q + delta (k q): then no sum waits for another, because S_in k and S_in q are summed
  side by side and k q once for all ROWS. It takes one simd_sum's latency out of each row's chain and lets the
  stores of the new state be the last thing that a row does. Where bandwidth is the limit, it changes nothing.
---*/
// helpers
constexpr constant int SHARE = DK / 32;
// body
const int lane = thread_index_in_simdgroup;
const size_t batch = threadgroup_position_in_grid.z, head = batch * HV + threadgroup_position_in_grid.y;
const size_t keys = (batch * HK + threadgroup_position_in_grid.y / (HV / HK)) * DK;
const int first = (threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup) * ROWS;
const float decay = g[head], rate = float(beta[head]);
float key[SHARE], query[SHARE], overlap = 0;
for (int i = 0; i < SHARE; ++i) {
    key[i] = float(k[keys + 32 * i + lane]);
    query[i] = float(q[keys + 32 * i + lane]);
    overlap = fma(key[i], query[i], overlap);
}
overlap = simd_sum(overlap);
for (int value = first; value < min(first + ROWS, DV); ++value) {
    const size_t at = head * DV + value;
    float state[SHARE], recalled = 0, answered = 0;
    for (int i = 0; i < SHARE; ++i) {
        state[i] = decay * state_in[at * DK + 32 * i + lane];
        recalled = fma(state[i], key[i], recalled);
        answered = fma(state[i], query[i], answered);
    }
    recalled = simd_sum(recalled);
    answered = simd_sum(answered);
    const float delta = rate * (float(v[at]) - recalled);
    if (lane == 0) y[at] = T(fma(delta, overlap, answered));
    for (int i = 0; i < SHARE; ++i) state_out[at * DK + 32 * i + lane] = fma(delta, key[i], state[i]);
}

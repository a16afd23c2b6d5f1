/*---
op: gated_delta_step
target: metal
tunables:
  SIMD_GROUPS: [4, 1, 2, 8, 16]
  ROWS: [1, 2, 4, 8]
launch:
  grid: ["ceil_div(DV, ROWS * SIMD_GROUPS) * 32 * SIMD_GROUPS", "HV", "b"]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  A SIMD group a row of the state: each lane keeps its DK / 32 elements in registers, so that the state is read once
  and written once, by neighbouring lanes side by side, and the sums are simd_sum's. ROWS rows, one after the other,
  share the loads of q and k. Flash-MoE left this undone and named it as headroom; the state is all the traffic
  (8 MB a layer of the 397B model), so a search should come near to the memory's bandwidth.
---*/
// helpers
constexpr constant int SHARE = DK / 32;
// body
const int lane = thread_index_in_simdgroup;
const size_t batch = threadgroup_position_in_grid.z, head = batch * HV + threadgroup_position_in_grid.y;
const size_t keys = (batch * HK + threadgroup_position_in_grid.y / (HV / HK)) * DK;
const int first = (threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup) * ROWS;
const float decay = g[head], rate = float(beta[head]);
float key[SHARE], query[SHARE];
for (int i = 0; i < SHARE; ++i) {
    key[i] = float(k[keys + 32 * i + lane]);
    query[i] = float(q[keys + 32 * i + lane]);
}
for (int value = first; value < min(first + ROWS, DV); ++value) {
    const size_t at = head * DV + value;
    float state[SHARE], recalled = 0, total = 0;
    for (int i = 0; i < SHARE; ++i) {
        state[i] = decay * state_in[at * DK + 32 * i + lane];
        recalled = fma(state[i], key[i], recalled);
    }
    const float delta = rate * (float(v[at]) - simd_sum(recalled));
    for (int i = 0; i < SHARE; ++i) {
        state[i] = fma(delta, key[i], state[i]);
        total = fma(state[i], query[i], total);
        state_out[at * DK + 32 * i + lane] = state[i];
    }
    total = simd_sum(total);
    if (lane == 0) y[at] = T(total);
}

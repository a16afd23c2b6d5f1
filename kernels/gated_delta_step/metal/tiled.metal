/*---
op: gated_delta_step
target: metal
tunables:
  LANES: [8, 4, 16, 32]
  SIMD_GROUPS: [2, 1, 4, 8]
launch:
  grid: ["ceil_div(DV * LANES, 32 * SIMD_GROUPS) * 32 * SIMD_GROUPS", "HV", "b"]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: registers
hypothesis: >
  LANES lanes a row, so that a SIMD group works on 32 / LANES rows at once: the shuffles that a sum needs serve all of
  them (three for eight lanes and four rows, where simd_sum needs five a row), and each lane moves the state
  sixteen bytes at a time. The price is DK / LANES values of k and of the state in the registers of each lane.
---*/
// helpers
constexpr constant int QUADS = DK / 4;
constexpr constant int SHARE = (QUADS + LANES - 1) / LANES;  // quads of a lane; the last may lie past the row's end

bool in_row(int quad) { return QUADS % LANES == 0 || quad < QUADS; }

float4 four(const device T* from) { return float4(float(from[0]), float(from[1]), float(from[2]), float(from[3])); }

// The sum over the LANES lanes of this row, in each of them.
float row_sum(float sum) {
    for (ushort step = 1; step < LANES; step *= 2) sum += simd_shuffle_xor(sum, step);
    return sum;
}
// body
const size_t batch = threadgroup_position_in_grid.z, head = batch * HV + threadgroup_position_in_grid.y;
const size_t keys = (batch * HK + threadgroup_position_in_grid.y / (HV / HK)) * DK;
const int position = threadgroup_position_in_grid.x * 32 * SIMD_GROUPS + thread_index_in_threadgroup;
const int value = position / LANES, lane = position % LANES;
const size_t at = head * DV + min(value, DV - 1);  // past the end, the last row again, which is not stored
const auto before = (const device packed_float4*)(state_in + at * DK);
const auto after = (device packed_float4*)(state_out + at * DK);
const float decay = g[head];
float4 state[SHARE], key[SHARE];
float recalled = 0, total = 0;
for (int i = 0; i < SHARE; ++i) {
    const int quad = lane + LANES * i;
    if (!in_row(quad)) continue;
    key[i] = four(k + keys + 4 * quad);
    state[i] = decay * float4(before[quad]);
    recalled += dot(state[i], key[i]);
}
const float delta = float(beta[head]) * (float(v[at]) - row_sum(recalled));
for (int i = 0; i < SHARE; ++i) {
    const int quad = lane + LANES * i;
    if (!in_row(quad)) continue;
    state[i] += delta * key[i];
    total += dot(state[i], four(q + keys + 4 * quad));
    if (value < DV) after[quad] = packed_float4(state[i]);
}
total = row_sum(total);
if (lane == 0 && value < DV) y[at] = T(total);

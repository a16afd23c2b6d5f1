/*---
op: gated_delta_step
target: metal
tunables:
  THREADS: [128, 32, 64, 256]
launch:
  grid: ["DV", "HV", "b"]
  threadgroup: ["min(THREADS, DV)", 1, 1]
hypothesis: >
  One thread a row of the state, which stays in device memory: three passes (decay and S k, update, S q) that load each
  element three times and store it twice. The form that Flash-MoE shipped; neighbouring threads touch addresses a
  whole row apart. The starting point.
---*/
const size_t value = thread_position_in_grid.x, head = thread_position_in_grid.z * HV + thread_position_in_grid.y;
const size_t keys = (thread_position_in_grid.z * HK + thread_position_in_grid.y / (HV / HK)) * DK;
const auto before = state_in + (head * DV + value) * DK;
const auto after = state_out + (head * DV + value) * DK;
const float decay = g[head];
float recalled = 0;
for (int i = 0; i < DK; ++i) {
    after[i] = decay * before[i];
    recalled += after[i] * float(k[keys + i]);
}
const float delta = float(beta[head]) * (float(v[head * DV + value]) - recalled);
for (int i = 0; i < DK; ++i) after[i] += delta * float(k[keys + i]);
float total = 0;
for (int i = 0; i < DK; ++i) total += after[i] * float(q[keys + i]);
y[head * DV + value] = T(total);

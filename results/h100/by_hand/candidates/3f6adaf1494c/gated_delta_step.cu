/*---
op: gated_delta_step
target: cuda
tunables:
  THREADS: [128, 32, 64, 256]
launch:
  grid: ["round_up(DV, THREADS)", "HV", "b"]
  threadgroup: [THREADS, 1, 1]
hypothesis: >
  One thread a row of the state, which stays in device memory: three passes (decay and S k, update, S q) that load each
  element three times and store it twice; neighbouring threads touch addresses a whole row apart. The starting point.
---*/
// body
const size_t value = size_t(blockIdx.x) * THREADS + threadIdx.x, head = size_t(blockIdx.z) * HV + blockIdx.y;
if (value >= DV) return;
const size_t keys = (size_t(blockIdx.z) * HK + blockIdx.y / (HV / HK)) * DK;
const float* before = state_in + (head * DV + value) * DK;
float* after = state_out + (head * DV + value) * DK;
float recalled = 0;
for (int i = 0; i < DK; ++i) {
    after[i] = g[head] * before[i];
    recalled += after[i] * float(k[keys + i]);
}
const float delta = float(beta[head]) * (float(v[head * DV + value]) - recalled);
for (int i = 0; i < DK; ++i) after[i] += delta * float(k[keys + i]);
float total = 0;
for (int i = 0; i < DK; ++i) total += after[i] * float(q[keys + i]);
y[head * DV + value] = T(total);

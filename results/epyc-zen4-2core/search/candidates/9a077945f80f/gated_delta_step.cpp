/*---
op: gated_delta_step
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
hypothesis: >
  The formula in its order, a row of the state at a time and one value after the other: the starting point. Four
  passes over each row, and two chains of float additions whose latency is the limit, not the memory.
---*/
const Range mine = share(b * HV * DV, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long head = i / DV, key_head = head / HV * HK + head % HV / (HV / HK);
    const T *key = k + key_head * DK, *query = q + key_head * DK;
    const float* before = state_in + i * DK;
    float* state = state_out + i * DK;
    for (long d = 0; d < DK; ++d) state[d] = g[head] * before[d];
    float recalled = 0;
    for (long d = 0; d < DK; ++d) recalled += state[d] * to_float(key[d]);
    const float delta = to_float(beta[head]) * (to_float(v[i]) - recalled);
    for (long d = 0; d < DK; ++d) state[d] += delta * to_float(key[d]);
    float read = 0;
    for (long d = 0; d < DK; ++d) read += state[d] * to_float(query[d]);
    y[i] = from_float<T>(read);
}

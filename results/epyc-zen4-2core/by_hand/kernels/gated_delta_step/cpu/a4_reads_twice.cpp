/*---
op: gated_delta_step
target: cpu
tunables:
  ROWS: [8, 4, 16]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: fused
hypothesis: >
  A row need not stay in registers: ROWS rows are read for their products with the key, and read again, from the first
  cache, to learn. Eight sums across lanes then overlap, where registers have room for two rows alone.
---*/
// helpers
constexpr int PARTS = DK / LANES;
// body
in_pieces(share(b * HV * DV, thread, n_threads), DV, [&](long head, Range values) {
    const long key_head = head / HV * HK + head % HV / (HV / HK);
    vfloat key[PARTS], query[PARTS];
    for (int part = 0; part < PARTS; ++part) {
        key[part] = load_floats<LANES>(k + key_head * DK + part * LANES);
        query[part] = load_floats<LANES>(q + key_head * DK + part * LANES);
    }
    in_steps_of<ROWS>(values, [&](auto rows, long value) {
        const long i = head * DV + value;
        float delta[rows];
        for (int r = 0; r < rows; ++r) {
            vfloat total = {};
            for (int p = 0; p < PARTS; ++p) total += load<vfloat>(state_in + (i + r) * DK + p * LANES) * key[p];
            delta[r] = to_float(beta[head]) * (to_float(v[i + r]) - g[head] * sum(total));
        }
        for (int r = 0; r < rows; ++r) {
            vfloat total = {};
            for (int p = 0; p < PARTS; ++p) {
                const vfloat learnt = load<vfloat>(state_in + (i + r) * DK + p * LANES) * g[head] + key[p] * delta[r];
                std::memcpy(state_out + (i + r) * DK + p * LANES, &learnt, sizeof(learnt));
                total += learnt * query[p];
            }
            y[i + r] = from_float<T>(sum(total));
        }
    });
});

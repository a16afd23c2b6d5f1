/*---
op: gated_delta_step
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
  AHEAD: [256, 128, 512, 1024]
launch: {threads: THREADS}
hypothesis: 'What one loop stores and the next one loads again fits the vector registers: both loops as straight code
  keep it there, and each element goes to memory once.'
traits: [cut_into_pieces, fuse_loops, vectorise, prefetch_elements, keep_in_registers]
---*/
const Range mine = share(b * HV * DV, thread, n_threads);
in_pieces(mine, DV, [&](long piece, Range part) {
    const long head = piece;
    const long key_head = head / HV * HK + head % HV / (HV / HK);
    const T *key = k + key_head * DK;
    const T *query = q + key_head * DK;
    for (long at = part.begin; at < part.end; ++at) {
        const long i = piece * DV + at;
        const float* before = state_in + i * DK;
        float* state = state_out + i * DK;
        float recalled = 0;
        vfloat recalled_lanes = {};
        vfloat state_kept[DK / LANES];
        unrolled<DK / LANES>([&](auto part_2) __attribute__((always_inline)) {
            const long d = part_2 * LANES;
            __builtin_prefetch(before + d + AHEAD);
            const vfloat state_new = g[head] * load_floats<LANES>(before + d);
            state_kept[part_2] = state_new;
            recalled_lanes += state_new * load_floats<LANES>(key + d);
        });
        recalled += sum(recalled_lanes);
        for (long d = DK / LANES * LANES; d < DK; ++d) {
            state[d] = g[head] * before[d];
            recalled += state[d] * to_float(key[d]);
        }
        const float delta = to_float(beta[head]) * (to_float(v[i]) - recalled);
        float read = 0;
        vfloat read_lanes = {};
        unrolled<DK / LANES>([&](auto part_2) __attribute__((always_inline)) {
            const long d = part_2 * LANES;
            const vfloat state_new = state_kept[part_2] + (delta * load_floats<LANES>(key + d));
            std::memcpy(state + d, &state_new, sizeof(state_new));
            read_lanes += state_new * load_floats<LANES>(query + d);
        });
        read += sum(read_lanes);
        for (long d = DK / LANES * LANES; d < DK; ++d) {
            state[d] += delta * to_float(key[d]);
            read += state[d] * to_float(query[d]);
        }
        y[i] = from_float<T>(read);
    }
});

/*---
op: gated_delta_step
target: cpu
tunables:
  ROWS: [2, 1, 4]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: fused
hypothesis: >
  What is stored of the state is not read again in this token: stores that pass the caches save the read of each line
  before it is overwritten, a third of all traffic. Loses where the state would have stayed in the cache.
---*/
// helpers
constexpr int PARTS = DK / LANES;

struct KeyHead {
    vfloat key[PARTS], query[PARTS];

    KeyHead(const T* k, const T* q) {
        for (int part = 0; part < PARTS; ++part) {
            key[part] = load_floats<LANES>(k + part * LANES);
            query[part] = load_floats<LANES>(q + part * LANES);
        }
    }
};

// Rows of the state, in registers; the loops over PARTS have constant indices so that they stay there.
template <int R>
struct StateRows {
    vfloat part[R][PARTS];

    // Loads R rows, decays them, and gives their products with the key.
    inline __attribute__((always_inline)) void decay(const float* from, float g, const KeyHead& head, float (&out)[R]) {
        vfloat total[R] = {};
        unrolled<PARTS>([&](auto p) __attribute__((always_inline)) {
            for (int r = 0; r < R; ++r) {
                part[r][p] = load<vfloat>(from + r * DK + p * LANES) * g;
                total[r] += part[r][p] * head.key[p];
            }
        });
        for (int r = 0; r < R; ++r) out[r] = sum(total[r]);
    }

    // Adds delta times the key, stores the rows, and gives their products with the query.
    inline __attribute__((always_inline)) void learn(
        float* to, const float (&delta)[R], const KeyHead& head, float (&out)[R]) {
        vfloat total[R] = {};
        unrolled<PARTS>([&](auto p) __attribute__((always_inline)) {
            for (int r = 0; r < R; ++r) {
                const vfloat learnt = part[r][p] + head.key[p] * delta[r];
                store_past(to + r * DK + p * LANES, learnt);
                total[r] += learnt * head.query[p];
            }
        });
        for (int r = 0; r < R; ++r) out[r] = sum(total[r]);
    }
};
// body
in_pieces(share(b * HV * DV, thread, n_threads), DV, [&](long head, Range values) {
    const long key_head = head / HV * HK + head % HV / (HV / HK);
    const KeyHead keys(k + key_head * DK, q + key_head * DK);
    in_steps_of<ROWS>(values, [&](auto rows, long value) {
        const long i = head * DV + value;
        StateRows<rows> state;
        float dots[rows], delta[rows];
        state.decay(state_in + i * DK, g[head], keys, dots);
        for (int r = 0; r < rows; ++r) delta[r] = to_float(beta[head]) * (to_float(v[i + r]) - dots[r]);
        state.learn(state_out + i * DK, delta, keys, dots);
        for (int r = 0; r < rows; ++r) y[i + r] = from_float<T>(dots[r]);
    });
});
finish_stores();

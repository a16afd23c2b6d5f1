/*---
op: gated_delta_step
target: cpu
tunables:
  ROWS: [2, 1, 4]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: fused
hypothesis: >
  y = (g S + delta k^T) q = g S q + delta (k . q), and k . q is one number a head. Both products of a row then come
  from the same pass over its registers, their sums across lanes overlap, and what is left after the wait for delta
  is one multiply-add and a store. Wins where latency still shows; where the memory is the limit it changes nothing.
---*/
// helpers
constexpr int PARTS = DK / LANES;

struct KeyHead {
    vfloat key[PARTS], query[PARTS];
    float key_query;

    KeyHead(const T* k, const T* q) {
        vfloat total = {};
        for (int part = 0; part < PARTS; ++part) {
            key[part] = load_floats<LANES>(k + part * LANES);
            query[part] = load_floats<LANES>(q + part * LANES);
            total += key[part] * query[part];
        }
        key_query = sum(total);
    }
};

// Rows of the state, in registers; the loops over PARTS have constant indices so that they stay there.
template <int R>
struct StateRows {
    vfloat part[R][PARTS];

    // Loads R rows, decays them, and gives their products with the key and with the query.
    inline __attribute__((always_inline)) void decay(
        const float* from, float g, const KeyHead& head, float (&recalled)[R], float (&read)[R]) {
        vfloat by_key[R] = {}, by_query[R] = {};
        unrolled<PARTS>([&](auto p) __attribute__((always_inline)) {
            for (int r = 0; r < R; ++r) {
                part[r][p] = load<vfloat>(from + r * DK + p * LANES) * g;
                by_key[r] += part[r][p] * head.key[p];
                by_query[r] += part[r][p] * head.query[p];
            }
        });
        for (int r = 0; r < R; ++r) recalled[r] = sum(by_key[r]);
        for (int r = 0; r < R; ++r) read[r] = sum(by_query[r]);
    }

    // Adds delta times the key and stores the rows.
    inline __attribute__((always_inline)) void learn(float* to, const float (&delta)[R], const KeyHead& head) {
        unrolled<PARTS>([&](auto p) __attribute__((always_inline)) {
            for (int r = 0; r < R; ++r) {
                const vfloat learnt = part[r][p] + head.key[p] * delta[r];
                std::memcpy(to + r * DK + p * LANES, &learnt, sizeof(learnt));
            }
        });
    }
};
// body
in_pieces(share(b * HV * DV, thread, n_threads), DV, [&](long head, Range values) {
    const long key_head = head / HV * HK + head % HV / (HV / HK);
    const KeyHead keys(k + key_head * DK, q + key_head * DK);
    in_steps_of<ROWS>(values, [&](auto rows, long value) {
        const long i = head * DV + value;
        StateRows<rows> state;
        float recalled[rows], read[rows], delta[rows];
        state.decay(state_in + i * DK, g[head], keys, recalled, read);
        for (int r = 0; r < rows; ++r) delta[r] = to_float(beta[head]) * (to_float(v[i + r]) - recalled[r]);
        state.learn(state_out + i * DK, delta, keys);
        for (int r = 0; r < rows; ++r) y[i + r] = from_float<T>(read[r] + delta[r] * keys.key_query);
    });
});

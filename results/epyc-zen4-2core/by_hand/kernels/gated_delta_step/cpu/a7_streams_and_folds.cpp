/*---
op: gated_delta_step
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: a1_streams
requires: [__AVX512F__]
hypothesis: >
  As a6, of a5: sixteen sums at once beside stores that pass the caches.
---*/
// helpers
#include <immintrin.h>
// Past the caches where the address allows it: the row's lines need not be read before they are overwritten.
inline void store_past(float* to, vfloat value) {
    if (reinterpret_cast<std::uintptr_t>(to) % 64 == 0) _mm512_stream_ps(to, __m512(value));
    else std::memcpy(to, &value, sizeof(value));
}
constexpr int PARTS = DK / LANES;
template <int HALF>
inline __attribute__((always_inline)) vfloat fold(vfloat a, vfloat b) {
    // lanes of a and b in turn, HALF apart, each the sum of two
    return [&]<int... L>(std::integer_sequence<int, L...>) __attribute__((always_inline)) {
        const vfloat low = __builtin_shufflevector(a, b, ((L & HALF) ? LANES + (L ^ HALF) : L)...);
        const vfloat high = __builtin_shufflevector(a, b, ((L & HALF) ? LANES + L : L ^ HALF)...);
        return low + high;
    }(std::make_integer_sequence<int, LANES>{});
}
// Lane r is the sum of rows[r].
inline vfloat sums_of(vfloat (&rows)[LANES]) {
    unrolled<LANES / 2>([&](auto i) __attribute__((always_inline)) { rows[i] = fold<8>(rows[i], rows[i + 8]); });
    unrolled<LANES / 4>([&](auto i) __attribute__((always_inline)) { rows[i] = fold<4>(rows[i], rows[i + 4]); });
    unrolled<LANES / 8>([&](auto i) __attribute__((always_inline)) { rows[i] = fold<2>(rows[i], rows[i + 2]); });
    return fold<1>(rows[0], rows[1]);
}
// body
in_pieces(share(b * HV * DV, thread, n_threads), DV, [&](long head, Range values) {
    const long key_head = head / HV * HK + head % HV / (HV / HK);
    vfloat key[PARTS], query[PARTS];
    for (int part = 0; part < PARTS; ++part) {
        key[part] = load_floats<LANES>(k + key_head * DK + part * LANES);
        query[part] = load_floats<LANES>(q + key_head * DK + part * LANES);
    }
    const auto learn = [&](long i, float delta) __attribute__((always_inline)) {
        vfloat total = {};
        for (int p = 0; p < PARTS; ++p) {
            const vfloat learnt = load<vfloat>(state_in + i * DK + p * LANES) * g[head] + key[p] * delta;
            store_past(state_out + i * DK + p * LANES, learnt);
            total += learnt * query[p];
        }
        return total;
    };
    const auto recall = [&](long i) __attribute__((always_inline)) {
        vfloat total = {};
        for (int p = 0; p < PARTS; ++p) total += load<vfloat>(state_in + i * DK + p * LANES) * key[p];
        return total;
    };
    long value = values.begin;
    for (; value + LANES <= values.end; value += LANES) {
        const long i = head * DV + value;
        vfloat rows[LANES];
        for (int r = 0; r < LANES; ++r) rows[r] = recall(i + r);
        const vfloat delta = to_float(beta[head]) * (load_floats<LANES>(v + i) - g[head] * sums_of(rows));
        for (int r = 0; r < LANES; ++r) rows[r] = learn(i + r, delta[r]);
        const vfloat made = sums_of(rows);
        for (int r = 0; r < LANES; ++r) y[i + r] = from_float<T>(made[r]);
    }
    for (; value < values.end; ++value) {
        const long i = head * DV + value;
        const float delta = to_float(beta[head]) * (to_float(v[i]) - g[head] * sum(recall(i)));
        y[i] = from_float<T>(sum(learn(i, delta)));
    }
});
_mm_sfence();

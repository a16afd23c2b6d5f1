/*---
op: gated_delta_step
target: cpu
tunables:
  ROWS: [8, 4, 16]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: a1_streams
requires: [__AVX512F__]
hypothesis: >
  a4 was as fast as fused with stores that fetch their lines (0.75 of a1's 1.36). With a1's stores the second read comes
  from the first cache and costs nothing that the memory notices.
---*/
// helpers
#include <immintrin.h>
// Past the caches where the address allows it: the row's lines need not be read before they are overwritten.
inline void store_past(float* to, vfloat value) {
    if (reinterpret_cast<std::uintptr_t>(to) % 64 == 0) _mm512_stream_ps(to, __m512(value));
    else std::memcpy(to, &value, sizeof(value));
}
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
                store_past(state_out + (i + r) * DK + p * LANES, learnt);
                total += learnt * query[p];
            }
            y[i + r] = from_float<T>(sum(total));
        }
    });
});
_mm_sfence();

/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2]
  PREFETCH: [8192, 0]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
requires: [__AVX512VNNI__]
hypothesis: >
  Two bytes of an activation in place of three: a third of the multiplications less. The check should say whether 16 bits
  of the row's largest are enough; by its tolerance I expect not.
---*/
// helpers
#include <immintrin.h>
using Rows = Packed<BITS, GROUP, K>;
// As Limbs, with two of them.
template <class P>
struct Halves {
    static constexpr int planes = 8 / P::bits;
    static constexpr long steps = (P::blocks + 1) * P::steps;
    alignas(64) std::int8_t x[steps][planes][2][4 * LANES];
    alignas(64) float sums[(P::blocks + 1) * LANES];
    float unit;
    void stage(const T* row) {
        static thread_local float values[steps * planes * 4 * LANES];
        std::memset(this, 0, sizeof(*this));
        std::memset(values, 0, sizeof(values));
        float largest = 0;
        for (long k = 0; k < P::values; ++k) {
            values[k] = to_float(row[k]);
            sums[k / P::group] += values[k];
            largest = std::fmax(largest, std::fabs(values[k]));
        }
        unit = largest / (127 * 256.0f);
        const float inverse = unit > 0 ? 1 / unit : 0;
        for (long k = 0; k < steps * planes * 4 * LANES; ++k) {
            const int whole = static_cast<int>(std::lrint(values[k] * inverse)), within = k % (planes * 4 * LANES);
            auto& to = x[k / (planes * 4 * LANES)][within % planes];
            to[0][within / planes] = static_cast<std::int8_t>((whole + 128) >> 8);
            to[1][within / planes] = static_cast<std::int8_t>(whole);
        }
    }
};
// body
if constexpr (!fit_bytes<BITS>) {
    Staged<Rows, InPlace> staged;
    in_pieces(share(m * N, thread, n_threads), N, [&](long token, Range outputs) {
        staged.stage(x + token * K);
        for (long n = outputs.begin; n < outputs.end; ++n) {
            const PackedRow<S> packed[1] = {PackedRow<S>::of<Rows>(w, scales, biases, n)};
            float dots[1][1];
            packed_dots<1, PREFETCH>(&staged, packed, dots);
            y[token * N + n] = from_float<T>(dots[0][0]);
        }
    });
} else {
    static thread_local Halves<Rows> staged;
    in_pieces(share(m * N, thread, n_threads), N, [&](long token, Range outputs) {
        staged.stage(x + token * K);
        for (long n = outputs.begin; n < outputs.end; ++n) {
            const auto row = PackedRow<S>::of<Rows>(w, scales, biases, n);
            float total = 0;
            for (long g = 0; g < Rows::row_groups; ++g) {
                long low = 0, high = 0;
                for (long k = g * GROUP; k < (g + 1) * GROUP; ++k) {
                    constexpr long step = Halves<Rows>::planes * 4 * LANES;
                    const long within = k % step;
                    const auto& at = staged.x[k / step][within % Halves<Rows>::planes];
                    const int q = int(packed_value<BITS>(reinterpret_cast<const uint32*>(row.weight), k));
                    high += q * at[0][within / Halves<Rows>::planes];
                    low += q * at[1][within / Halves<Rows>::planes];
                }
                total += to_float(row.scales[g]) * staged.unit * float(256 * high + low) + to_float(row.biases[g]) * staged.sums[g];
            }
            y[token * N + n] = from_float<T>(total);
        }
    });
}

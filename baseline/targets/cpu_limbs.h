// Products of packed rows in integers, for weights of 2, 4 and 8 bits. Follows cpu_prelude.h in every unit.
//
// An activation is rounded to a signed number of 24 bits, cut into three limbs of a byte:
// x = unit * (65536 * limb[0] + 256 * limb[1] + limb[2]), with one unit a row: an error of 2^-24 of the row's largest,
// as a float's is of itself. One instruction then multiplies four bytes a lane, and no sum within a group is rounded.
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

constexpr int LIMBS = 3;
constexpr float LARGEST_LIMBS = 127.0f * 65536.0f;

typedef std::int8_t vbyte __attribute__((vector_size(4 * LANES)));
typedef std::int16_t vshort __attribute__((vector_size(4 * LANES)));

inline vfloat floats(vint whole) { return __builtin_convertvector(whole, vfloat); }

// ---- sums of products of bytes -----------------------------------------------------------------------

// Products are summed with weights around their middle: a group's scale * sum(x * q) would cancel with its bias * sum(x),
// as biases are near -scale * middle, and leave the errors of both. What a step's activations are to begin with, lane by
// lane: less the middle times their sum; `high` is the first limb's part where 32 bits do not hold all, at 8 bits.
template <int BITS>
struct Start {
    static constexpr bool split = BITS == 8;
    vint low, high;
};

// A row's sums over one step, a limb at a time: `add` takes bytes of weights, 0 to WEIGHT_LIMIT, four a lane, and
// the limbs of the activations beside them; `total` puts the limbs together.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)

constexpr bool DOTS_OF_BYTES = true;  // one instruction does it
inline vint dot_of_bytes(vint sums, vuint weights, vint x) {
#if defined(__AVX512VNNI__)
    return vint(_mm512_dpbusd_epi32(__m512i(sums), __m512i(weights), __m512i(x)));
#elif defined(__AVXVNNI__)
    return vint(_mm256_dpbusd_avx_epi32(__m256i(sums), __m256i(weights), __m256i(x)));
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    return vint(vusdotq_s32(int32x4_t(sums), uint8x16_t(weights), int8x16_t(x)));
#else
    return vint(vdotq_s32(int32x4_t(sums), int8x16_t(weights), int8x16_t(x)));
#endif
}
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int WEIGHT_LIMIT = 255;
#else
constexpr int WEIGHT_LIMIT = 127;  // the instruction takes two signed operands
#endif
template <int BITS>
struct LimbSums {
    vint limbs[LIMBS] = {};

    inline __attribute__((always_inline)) void begin(const Start<BITS>& start) {
        if constexpr (Start<BITS>::split) limbs[0] = start.high;
        limbs[2] = start.low;
    }
    inline __attribute__((always_inline)) void add(vuint weights, const vint (&x)[LIMBS]) {
        for (int i = 0; i < LIMBS; ++i) limbs[i] = dot_of_bytes(limbs[i], weights, x[i]);
    }
    inline __attribute__((always_inline)) vint low() const { return (limbs[1] << 8) + limbs[2]; }
    inline __attribute__((always_inline)) vint whole() const { return (((limbs[0] << 8) + limbs[1]) << 8) + limbs[2]; }
    inline __attribute__((always_inline)) vint high() const { return limbs[0]; }
    inline __attribute__((always_inline)) vfloat total() const {
        if constexpr (!Start<BITS>::split) return floats(whole());
        return floats(high()) * 65536.0f + floats(low());
    }
};

#else  // pairs of products in 16 bits: exact for weights below 16, four bytes of which may be added

constexpr bool DOTS_OF_BYTES = false;
vint dot_of_bytes(vint, vuint, vint);  // never defined: nothing that calls it is instantiated
constexpr int WEIGHT_LIMIT = 15;
inline vshort pairs_of_bytes(vuint weights, vint x) {
#if defined(__AVX512BW__)
    return vshort(_mm512_maddubs_epi16(__m512i(weights), __m512i(x)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return vshort(_mm256_maddubs_epi16(__m256i(weights), __m256i(x)));
#else
    const vshort w = vshort(weights), even = vshort(vshort(x) << 8) >> 8, odd = vshort(x) >> 8;
    return (w & 0xff) * even + (w >> 8) * odd;
#endif
}
// Each pair of sums, times FACTOR.
template <short FACTOR>
inline vint joined_pairs(vshort sums) {
#if defined(__AVX512BW__)
    return vint(_mm512_madd_epi16(__m512i(sums), _mm512_set1_epi16(FACTOR)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return vint(_mm256_madd_epi16(__m256i(sums), _mm256_set1_epi16(FACTOR)));
#else
    return ((vint(vuint(sums) << 16) >> 16) + (vint(sums) >> 16)) * FACTOR;
#endif
}
template <int BITS>
struct LimbSums {
    vshort limbs[LIMBS] = {};
    vint start = {};

    inline __attribute__((always_inline)) void begin(const Start<BITS>& given) { start = given.low; }
    inline __attribute__((always_inline)) void add(vuint weights, const vint (&x)[LIMBS]) {
        for (int i = 0; i < LIMBS; ++i) limbs[i] += pairs_of_bytes(weights, x[i]);
    }
    inline __attribute__((always_inline)) vint low() const {
        return joined_pairs<256>(limbs[1]) + joined_pairs<1>(limbs[2]) + start;
    }
    inline __attribute__((always_inline)) vint whole() const { return (joined_pairs<256>(limbs[0]) << 8) + low(); }
    inline __attribute__((always_inline)) vint high() const { return joined_pairs<1>(limbs[0]); }
    inline __attribute__((always_inline)) vfloat total() const { return floats(whole()); }
};

#endif

// Whether weights of so many bits are bytes after a mask, and small enough: 3- and 6-bit ones straddle words.
template <int BITS>
constexpr bool fit_bytes = 32 % BITS == 0 && (1 << BITS) - 1 <= WEIGHT_LIMIT;

// ---- activations ---------------------------------------------------------------------------------------

// The activations of one row, in the order in which the bytes of packed words meet them. The values of a word are
// taken in planes: plane p is the p-th field of each byte.
template <class P>
struct Limbs {
    static_assert(fit_bytes<P::bits>, "no instruction here multiplies such weights as bytes");
    static constexpr int planes = 8 / P::bits;
    static constexpr long steps = (P::blocks + 1) * P::steps;
    static constexpr int middle = 1 << (P::bits - 1);
    alignas(64) std::int8_t x[steps][planes][LIMBS][4 * LANES];
    alignas(64) int32 low[steps][LANES], high[Start<P::bits>::split ? steps : 1][LANES];
    alignas(64) float sums[(P::blocks + 1) * LANES];
    float unit;

    // `weight` multiplies the row. A row with an infinity or a NaN gives NaNs.
    template <class T>
    void stage(const T* row, float weight = 1.0f) {
        alignas(64) float values[steps * planes * 4 * LANES];
        std::uint32_t largest = 0;
        for (long k = 0; k < P::values; ++k) {
            values[k] = weight * to_float(row[k]);
            const std::uint32_t size = bits_as<std::uint32_t>(values[k]) & 0x7fffffff;
            largest = size > largest ? size : largest;
        }
        std::memset(values + P::values, 0, sizeof(values) - P::values * sizeof(float));
        add_groups(values);
        unit = bits_as<float>(largest) / LARGEST_LIMBS;
        const float inverse = unit >= 0x1p-126f ? 1.0f / unit : 0.0f;  // below: the row is 0 to 1e-31
        if (largest >= 0x7f800000) unit = bits_as<float>(0x7fc00000u);
        for (long step = 0; step < steps; ++step) cut(values + step * planes * 4 * LANES, inverse, x[step]);
        for (long step = 0; step < steps; ++step) set_start(step);
    }

    inline __attribute__((always_inline)) Start<P::bits> start(long step) const {
        if constexpr (Start<P::bits>::split) return Start<P::bits>{load<vint>(low[step]), load<vint>(high[step])};
        return Start<P::bits>{load<vint>(low[step]), vint{}};
    }

  private:
    void add_groups(const float* values) {
        for (long group = 0; group < (P::blocks + 1) * LANES; ++group) {
            vfloat total = {};
            for (int k = 0; k < P::group; k += LANES) total += load<vfloat>(values + group * P::group + k);
            sums[group] = sum(total);
        }
    }
    void set_start(long step) {
        LimbSums<P::bits> sums;
        for (const auto& plane : x[step]) {
            const vint limbs[LIMBS] = {load<vint>(plane[0]), load<vint>(plane[1]), load<vint>(plane[2])};
            sums.add(vuint{} + 0x01010101u, limbs);
        }
        constexpr bool split = Start<P::bits>::split;
        const vint lower = (split ? sums.low() : sums.whole()) * -middle, upper = sums.high() * -middle;
        std::memcpy(low[step], &lower, sizeof(lower));
        if constexpr (split) std::memcpy(high[step], &upper, sizeof(upper));
    }
    static void cut(const float* values, float inverse, std::int8_t (&to)[planes][LIMBS][4 * LANES]) {
        std::int8_t bytes[LIMBS][planes * 4 * LANES];
        for (int k = 0; k < planes * 4 * LANES; ++k) {
            const float scaled = values[k] * inverse;
            const int whole = static_cast<int>(scaled + (scaled < 0 ? -0.5f : 0.5f));
            const int high = (whole + 128) >> 8;  // the limbs below are signed
            bytes[0][k] = static_cast<std::int8_t>((high + 128) >> 8);
            bytes[1][k] = static_cast<std::int8_t>(high);
            bytes[2][k] = static_cast<std::int8_t>(whole);
        }
        for (int plane = 0; plane < planes; ++plane)
            for (int i = 0; i < LIMBS; ++i)
                for (int k = 0; k < 4 * LANES; ++k) to[plane][i][k] = bytes[i][k * planes + plane];
    }
};

// ---- rows ----------------------------------------------------------------------------------------------

template <int BITS>
inline vuint plane_of(vuint words, int plane) {
    constexpr std::uint32_t mask = 0x01010101u * ((1u << BITS) - 1);
    return (words >> plane * BITS) & mask;
}

// As add_block of Staged.
template <int T, int PREFETCH, int GROUPS, class P, class S, int R>
inline __attribute__((always_inline)) void add_block(const Limbs<P>* staged, long block, const PackedRow<S> (&rows)[R],
                                                     vfloat (&totals)[R][T]) {
    const auto add = [&](auto valid, long step, auto& at, auto& scales) __attribute__((always_inline)) {
        LimbSums<P::bits> sums[R][T];
        vuint words[R];
        for (int r = 0; r < R; ++r) {
            words[r] = load<vuint, valid>(at[r]);
            for (int t = 0; t < T; ++t) sums[r][t].begin(staged[t].start(step));
        }
        unrolled<Limbs<P>::planes>([&](auto plane) __attribute__((always_inline)) {
            for (int t = 0; t < T; ++t) {
                const auto& x = staged[t].x[step][plane];
                const vint limbs[LIMBS] = {load<vint>(x[0]), load<vint>(x[1]), load<vint>(x[2])};
                for (int r = 0; r < R; ++r) sums[r][t].add(plane_of<P::bits>(words[r], plane), limbs);
            }
        });
        for (int r = 0; r < R; ++r)
            for (int t = 0; t < T; ++t) totals[r][t] += scales[r] * staged[t].unit * sums[r][t].total();
    };
    walk_block<P, PREFETCH, GROUPS>(staged, block, rows, totals, add);
}

// What every CPU kernel may use. The build puts this text in front of the generated code, so a kernel
// needs no #include for it. Written with the vector extensions that GCC (12 and later) and Clang share:
// the same source becomes AVX-512, AVX2 or NEON code.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed weights are little-endian words");

// ---- element types ---------------------------------------------------------------------------------

using uint32 = std::uint32_t;
using int32 = std::int32_t;
using float32 = float;
#if defined(__aarch64__)
using float16 = __fp16;  // GCC 12 has no _Float16 there
#else
using float16 = _Float16;
#endif
struct bfloat16 {
    std::uint16_t bits;
};

template <class To, class From>
inline To bits_as(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

inline float to_float(float value) { return value; }
inline float to_float(float16 value) { return static_cast<float>(value); }
inline float to_float(bfloat16 value) { return bits_as<float>(std::uint32_t(value.bits) << 16); }

// Rounds to nearest, ties to even.
template <class T>
inline T from_float(float value) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        if (value != value) return bfloat16{0x7fc0};
        const auto bits = bits_as<std::uint32_t>(value);
        return bfloat16{static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
    } else {
        return static_cast<T>(value);
    }
}

inline float silu(float value) { return value / (1.0f + std::exp(-value)); }

// ---- sharing the work ------------------------------------------------------------------------------

struct Range {
    long begin, end;
};

// The contiguous part of [0, total) that is this thread's.
inline Range share(long total, int thread, int n_threads) {
    return {total * thread / n_threads, total * (thread + 1) / n_threads};
}

// Cuts `range` where a multiple of `length` lies: f(number of the piece, the range within it).
template <class F>
inline void in_pieces(Range range, long length, F&& f) {
    for (long begin = range.begin; begin < range.end;) {
        const long piece = begin / length, start = piece * length;
        const long end = range.end < start + length ? range.end : start + length;
        f(piece, Range{begin - start, end - start});
        begin = end;
    }
}

template <int N>
using Count = std::integral_constant<int, N>;

// Calls f(Count<0>), ..., f(Count<N - 1>): a loop whose index is a compile-time constant.
template <int N, class F>
inline __attribute__((always_inline)) void unrolled(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (f(Count<I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

// Covers `range` in steps of ROWS, and what is left one by one: f(Count<rows>, first row).
template <int ROWS, class F>
inline void in_steps_of(Range range, F&& f) {
    long row = range.begin;
    for (; row + ROWS <= range.end; row += ROWS) f(Count<ROWS>{}, row);
    for (; row < range.end; ++row) f(Count<1>{}, row);
}

// ---- vectors ---------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef std::int32_t vint __attribute__((vector_size(4 * LANES)));
typedef std::uint32_t vuint __attribute__((vector_size(4 * LANES)));
typedef std::uint16_t vushort __attribute__((vector_size(2 * LANES)));

// The first N elements at any address; the other lanes are zero, and memory behind them is not touched.
template <class V, int N = LANES>
inline V load(const void* address) {
    V vector = {};
    std::memcpy(&vector, address, N * sizeof(vector[0]));
    return vector;
}

// The first N of an array of float32, float16 or bfloat16, as floats.
template <int N, class S>
inline vfloat load_floats(const S* from) {
    if constexpr (std::is_same_v<S, float>) {
        return load<vfloat, N>(from);
    } else {
        const vuint raw = __builtin_convertvector((load<vushort, N>(from)), vuint);
        if constexpr (std::is_same_v<S, bfloat16>) {
            return bits_as<vfloat>(raw << 16);
        } else {
            // Half to float: move the fields, then correct the exponent's bias; infinities and NaNs apart.
            const vfloat scaled = bits_as<vfloat>((raw & 0x7fff) << 13) * 0x1p112f;
            const vuint special = bits_as<vuint>((raw & 0x7c00) == 0x7c00) & 0x7f800000;
            return bits_as<vfloat>(bits_as<vuint>(scaled) | special | ((raw & 0x8000) << 16));
        }
    }
}

inline vfloat to_floats(vuint small) {  // below 2^31: the signed conversion is one instruction everywhere
    return __builtin_convertvector(bits_as<vint>(small), vfloat);
}

// e^x to some 2e-7 of itself, 0 and the largest power that a float holds beyond its range; NaN stays NaN. The argument
// is cut into n * ln 2 + r, and a polynomial (Cephes' expf) takes r.
inline vfloat exp_of(vfloat x) {
    x = x < -87.3f ? vfloat{} - 87.3f : x;
    x = x > 88.3f ? vfloat{} + 88.3f : x;
    const vfloat halves = x * 1.44269504f + (x < 0.0f ? vfloat{} - 0.5f : vfloat{} + 0.5f);
    const vint n = __builtin_convertvector(halves, vint);
    const vfloat whole = __builtin_convertvector(n, vfloat);
    const vfloat r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vfloat p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    for (const float c : {8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = p * r + c;
    return (p * r * r + r + 1.0f) * bits_as<vfloat>((n + 127) << 23);
}

template <int HALF, int... L>
inline vfloat add_halves(vfloat vector, std::integer_sequence<int, L...> lanes) {
    if constexpr (HALF == 0) {
        return vector;
    } else {
        return add_halves<HALF / 2>(vector + __builtin_shufflevector(vector, vector, (L ^ HALF)...), lanes);
    }
}

inline float sum(vfloat vector) {
    return add_halves<LANES / 2>(vector, std::make_integer_sequence<int, LANES>{})[0];
}

// A store past the caches, where the machine has one and the address allows it: a line that is filled whole need not be
// read before. `finish_stores` before the kernel returns.
inline void store_past(float* to, vfloat value) {
    if (reinterpret_cast<std::uintptr_t>(to) % sizeof(value) == 0) {
#if defined(__clang__)
        return __builtin_nontemporal_store(value, reinterpret_cast<vfloat*>(to));
#elif defined(__AVX512F__)
        return __builtin_ia32_movntps512(to, value);
#elif defined(__AVX2__)
        return __builtin_ia32_movntps256(to, value);
#endif
    }
    std::memcpy(to, &value, sizeof(value));
}

inline void finish_stores() {
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

// ---- packed rows: MLX's affine quantisation, value = scale * q + bias, LSB first -----------------------

// The k-th q of a row that starts at `row`.
template <int BITS>
inline float packed_value(const uint32* row, long k) {
    const long word = k * BITS / 32, shift = k * BITS % 32;
    std::uint64_t bits = row[word];
    if (shift + BITS > 32) bits |= std::uint64_t(row[word + 1]) << 32;
    return static_cast<float>(bits >> shift & ((1u << BITS) - 1));
}

// How a row of K values is walked. A lane decodes a *unit* at a time: the values of one word or, where
// values straddle words (3 and 6 bits), of three. LANES units side by side are a step; as many steps as
// LANES groups need are a block, so a block has exactly one vector of scales and one of biases.
template <int BITS, int GROUP, long K>
struct Packed {
    static_assert(K % GROUP == 0, "a row is a whole number of groups");
    static constexpr int bits = BITS;
    static constexpr int unit_words = 32 % BITS == 0 ? 1 : 3;
    static constexpr int unit = unit_words * 32 / BITS;
    static constexpr int steps = GROUP / unit;
    static constexpr long block = long(LANES) * GROUP;
    static constexpr long blocks = K / block;
    static constexpr int rest = K % block / GROUP;  // groups in the last, incomplete block
    static constexpr int step_words = LANES * unit_words;
    static constexpr int group_words = GROUP * BITS / 32;
    static constexpr long row_bytes = K * BITS / 8;
    static constexpr long row_groups = K / GROUP;
    static constexpr long values = K;
    static constexpr int group = GROUP;
};

// Activations in the order in which the lanes of packed words meet them, with the sum of each group:
// sum(x * (scale * q + bias)) = sum over groups of scale * sum(x * q) + bias * sum(x).
// Decode::factor(bits, j) is what the unit's j-th field needs on top of its value; `weight` multiplies the whole row.
template <class P, class Decode>
struct Staged {
    static constexpr int middle = 0;
    alignas(64) float x[(P::blocks + 1) * P::steps][P::unit][LANES];
    alignas(64) float sums[(P::blocks + 1) * LANES];

    template <class T>
    void stage(const T* row, float weight = 1.0f) {
        std::memset(this, 0, sizeof(*this));
        for (long k = 0; k < P::values; k += P::unit) {
            const long unit = k / P::unit, step = unit / LANES, lane = unit % LANES;
            float total = 0;
            for (int j = 0; j < P::unit; ++j) {
                const float value = weight * to_float(row[k + j]);
                x[step][j][lane] = value * Decode::factor(P::bits, j);
                total += value;
            }
            sums[k / P::group] += total;
        }
    }
};

template <class S>
struct PackedRow {
    const unsigned char* weight;
    const S* scales;
    const S* biases;

    // Row `row` of a packed matrix whose three tensors start at these addresses.
    template <class P>
    static PackedRow of(const void* weight, const void* scales, const void* biases, long row) {
        return {static_cast<const unsigned char*>(weight) + row * P::row_bytes,
                static_cast<const S*>(scales) + row * P::row_groups,
                static_cast<const S*>(biases) + row * P::row_groups};
    }
};

// Every third of 3 * LANES words, from the FIRST: lane l gets word 3 * l + FIRST.
template <int FIRST, int... L>
inline vuint every_third(vuint a, vuint b, vuint c, std::integer_sequence<int, L...>) {
    const vuint ab = __builtin_shufflevector(a, b, (3 * L + FIRST < 2 * LANES ? 3 * L + FIRST : 0)...);
    return __builtin_shufflevector(ab, c, (3 * L + FIRST < 2 * LANES ? L : 3 * L + FIRST - LANES)...);
}

// One step's words, N of them valid: words[i] holds the i-th word of each lane's unit.
template <int UNIT_WORDS, int N>
inline void load_words(const unsigned char* from, vuint (&words)[UNIT_WORDS]) {
    if constexpr (UNIT_WORDS == 1) {
        words[0] = load<vuint, N>(from);
    } else {
        vuint in[3];
        unrolled<3>([&](auto i) {
            constexpr int left = N - i * LANES;
            constexpr int valid = left < 0 ? 0 : left < LANES ? left : LANES;
            in[i] = load<vuint, valid>(from + (valid ? i * LANES * 4 : 0));
        });
        constexpr auto lanes = std::make_integer_sequence<int, LANES>{};
        words[0] = every_third<0>(in[0], in[1], in[2], lanes);
        words[1] = every_third<1>(in[0], in[1], in[2], lanes);
        words[2] = every_third<2>(in[0], in[1], in[2], lanes);
    }
}

// The factors of a block's groups, of the rows' scales or biases, for each of its steps: lane l gets that of the group
// that it works on.
template <class P>
inline __attribute__((always_inline)) void spread(vfloat groups, vfloat (&steps)[P::steps]) {
    unrolled<P::steps>([&](auto step) __attribute__((always_inline)) {
        steps[step] = [&]<int... L>(std::integer_sequence<int, L...>) __attribute__((always_inline)) {
            return __builtin_shufflevector(groups, groups, ((step * LANES + L) * P::unit / P::group)...);
        }(std::make_integer_sequence<int, LANES>{});
    });
}

// Walks one block of R rows, GROUPS groups of it valid: add(Count<valid words>, step, scales of the step) for each
// step. Adds what the biases make of the groups' sums by itself. PREFETCH: bytes to ask for ahead, 0 for none.
template <class P, int PREFETCH, int GROUPS, class S, int R, int T, class Input, class F>
inline __attribute__((always_inline)) void walk_block(const Input* staged, long block, const PackedRow<S> (&rows)[R],
                                                      vfloat (&totals)[R][T], F&& add) {
    vfloat scales[R][P::steps];
    for (int r = 0; r < R; ++r) {
        spread<P>(load_floats<GROUPS>(rows[r].scales + block * LANES), scales[r]);
        // What the biases add to the middle of the weights' range, around which Input has them.
        const vfloat biases = load_floats<GROUPS>(rows[r].biases + block * LANES) +
                              load_floats<GROUPS>(rows[r].scales + block * LANES) * float(Input::middle);
        for (int t = 0; t < T; ++t) totals[r][t] += biases * load<vfloat>(staged[t].sums + block * LANES);
    }
    const auto walk = [&](auto valid, int step) __attribute__((always_inline)) {
        const unsigned char* at[R];
        vfloat factors[R];
        for (int r = 0; r < R; ++r) {
            at[r] = rows[r].weight + (block * P::steps + step) * P::step_words * 4;
            factors[r] = scales[r][step];
            if constexpr (PREFETCH > 0) __builtin_prefetch(at[r] + PREFETCH, 0, 2);
        }
        add(valid, block * P::steps + step, at, factors);
    };
    constexpr int words = GROUPS * P::group_words, whole = words / P::step_words, left = words % P::step_words;
    for (int step = 0; step < whole; ++step) walk(Count<P::step_words>{}, step);
    if constexpr (left > 0) walk(Count<left>{}, whole);
}

// Adds one block of R rows with T tokens to the totals: what is decoded once serves all tokens.
template <int T, int PREFETCH, int GROUPS, class P, class Decode, class S, int R>
inline __attribute__((always_inline)) void add_block(const Staged<P, Decode>* staged, long block,
                                                     const PackedRow<S> (&rows)[R], vfloat (&totals)[R][T]) {
    const auto add = [&](auto valid, long step, auto& at, auto& scales) __attribute__((always_inline)) {
        vuint words[R][P::unit_words];
        vfloat part[R][T] = {};
        for (int r = 0; r < R; ++r) load_words<P::unit_words, valid>(at[r], words[r]);
        unrolled<P::unit>([&](auto j) __attribute__((always_inline)) {
            vfloat fields[R];
            for (int r = 0; r < R; ++r) fields[r] = Decode::template field<P::bits, j>(words[r]);
            for (int t = 0; t < T; ++t) {
                const vfloat x = load<vfloat>(staged[t].x[step][j]);
                for (int r = 0; r < R; ++r) part[r][t] += fields[r] * x;
            }
        });
        for (int r = 0; r < R; ++r)
            for (int t = 0; t < T; ++t) totals[r][t] += scales[r] * part[r][t];
    };
    walk_block<P, PREFETCH, GROUPS>(staged, block, rows, totals, add);
}

// The j-th field of a unit, moved to the low bits.
template <int BITS, int J>
inline vuint shifted_field(const vuint* words) {
    constexpr int word = J * BITS / 32, shift = J * BITS % 32;
    constexpr std::uint32_t mask = (1u << BITS) - 1;
    if constexpr (shift + BITS > 32) {
        return (words[word] >> shift | words[word + 1] << (32 - shift)) & mask;
    } else if constexpr (shift + BITS == 32) {
        return words[word] >> shift;
    } else {
        return (words[word] >> shift) & mask;
    }
}

// Ways to decode the j-th field of a unit; Staged multiplies the activation by factor(j). This one moves it down.
struct Shifted {
    static constexpr float factor(int, int) { return 1.0f; }
    template <int B, int J>
    static vfloat field(const vuint* words) {
        return to_floats(shifted_field<B, J>(words));
    }
};

// A field that ends below its word's top bit stays where it is, as q * 2^shift; x is multiplied by 2^-shift.
struct InPlace {
    static constexpr bool in_place(int bits, int j) { return j * bits % 32 + bits < 32; }
    static constexpr float factor(int bits, int j) {
        return in_place(bits, j) ? 1.0f / float(1u << j * bits % 32) : 1.0f;
    }
    template <int B, int J>
    static vfloat field(const vuint* words) {
        if constexpr (!in_place(B, J)) return Shifted::field<B, J>(words);
        return to_floats(words[J * B / 32] & ((1u << B) - 1) << J * B % 32);
    }
};

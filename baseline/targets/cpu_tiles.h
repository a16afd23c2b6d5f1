// Packed rows times many tokens, a row a lane. Follows cpu_limbs.h in every unit.
//
// Rows are turned so that a vector holds one word of each of LANES rows: a word's products with a token then need
// one number of the token for all lanes, each group's scale is applied once, and no sum runs across lanes. What is
// turned serves all tokens, and a turned word TILE_TOKENS of them at a time, whose sums stay in registers.

#include <algorithm>
#include <memory>

constexpr int TILE_TOKENS = 4;
constexpr long STAGED_TOKENS = 32;  // at a time: they stay in the cache while all rows pass

template <class P>
constexpr bool fit_tiles = DOTS_OF_BYTES && fit_bytes<P::bits>;

// A token's limbs, with what the sums of whole groups begin with: the first limb's, and the others'.
template <class P>
struct TileLimbs : Limbs<P> {
    int32 group_high[P::row_groups], group_low[P::row_groups];

    template <class... Row>
    void stage(const Row&... row) {
        Limbs<P>::stage(row...);
        for (long group = 0; group < P::row_groups; ++group) {
            int sums[LIMBS] = {};
            for (long word = group * P::group_words; word < (group + 1) * P::group_words; ++word)
                for (const auto& plane : this->x[word / LANES])
                    for (int i = 0; i < LIMBS; ++i)
                        for (int k = 0; k < 4; ++k) sums[i] += plane[i][word % LANES * 4 + k];
            group_high[group] = -Limbs<P>::middle * sums[0];
            group_low[group] = -Limbs<P>::middle * (sums[1] * 256 + sums[2]);
        }
    }
};

// Calls f(P(), first, count), a generic lambda, where there are tiles for so many tokens.
template <class P, class F>
inline bool in_tiles(F&& f, long first, long count) {
    if constexpr (fit_tiles<P>) {
        if (count >= TILE_TOKENS) f(P(), first, count);
        return count >= TILE_TOKENS;
    }
    return false;
}

template <class P>
using TokenLimbs = std::unique_ptr<TileLimbs<P>[]>;

// Limbs of `count` tokens: stage(token, its limbs) fills them.
template <class P, class Stage>
TokenLimbs<P> staged_tokens(long count, Stage&& stage) {
    auto staged = std::make_unique_for_overwrite<TileLimbs<P>[]>(count);
    for (long token = 0; token < count; ++token) stage(token, staged[token]);
    return staged;
}

// f(first, count) for every run of at most STAGED_TOKENS of `pairs` that share a slot.
template <class F>
inline void in_runs(const int32* slot, long pairs, F&& f) {
    for (long first = 0, end; first < pairs; first = end) {
        for (end = first + 1; end < pairs && end - first < STAGED_TOKENS && slot[end] == slot[first];) ++end;
        f(first, end - first);
    }
}

// This thread's part of `rows`, whole tiles of `step` rows.
inline Range share_of_tiles(long rows, long step, int thread, int n_threads) {
    const Range tiles = share((rows + step - 1) / step, thread, n_threads);
    return {tiles.begin * step, std::min(rows, tiles.end * step)};
}

// Lane by lane from the lower (HALF = 0) or upper half of two vectors, in turn.
template <int HALF, int... L>
inline vuint zipped(vuint a, vuint b, std::integer_sequence<int, L...>) {
    return __builtin_shufflevector(a, b, (HALF * LANES / 2 + L / 2 + L % 2 * LANES)...);
}

// Swaps rows and lanes: each of log2(LANES) zips moves one bit of an element's row into its lane.
inline __attribute__((always_inline)) void transpose(vuint (&rows)[LANES]) {
    constexpr auto lanes = std::make_integer_sequence<int, LANES>{};
    for (int stage = 1; stage < LANES; stage *= 2) {
        vuint next[LANES];
        unrolled<LANES / 2>([&](auto i) __attribute__((always_inline)) {
            next[2 * i] = zipped<0>(rows[i], rows[i + LANES / 2], lanes);
            next[2 * i + 1] = zipped<1>(rows[i], rows[i + LANES / 2], lanes);
        });
        unrolled<LANES>([&](auto i) __attribute__((always_inline)) { rows[i] = next[i]; });
    }
}

// R sets of LANES rows, turned.
template <class P, int R>
struct Tile {
    static constexpr long words = P::row_bytes / 4;
    alignas(64) vuint word[words][R];
    alignas(64) vfloat scales[P::row_groups][R], biases[P::row_groups][R];

    template <class S>
    void turn(const PackedRow<S> (&rows)[R][LANES]) {
        for (int r = 0; r < R; ++r) {
            for (long first = 0; first + LANES <= words; first += LANES) turn_words<LANES>(rows[r], r, first);
            if constexpr (words % LANES > 0) turn_words<words % LANES>(rows[r], r, words / LANES * LANES);
            for (long group = 0; group < P::row_groups; ++group)
                for (int lane = 0; lane < LANES; ++lane) {
                    scales[group][r][lane] = to_float(rows[r][lane].scales[group]);
                    biases[group][r][lane] =
                        to_float(rows[r][lane].biases[group]) + Limbs<P>::middle * to_float(rows[r][lane].scales[group]);
                }
        }
    }

  private:
    template <int N, class S>
    void turn_words(const PackedRow<S> (&rows)[LANES], int r, long first) {
        vuint square[LANES];
        unrolled<LANES>([&](auto lane) __attribute__((always_inline)) {
            square[lane] = load<vuint, N>(rows[lane].weight + first * 4);
        });
        transpose(square);
        unrolled<N>([&](auto i) __attribute__((always_inline)) { word[first + i][r] = square[i]; });
    }
};

// The four bytes of a limb that meet one plane of a word, in all lanes.
template <class P>
inline __attribute__((always_inline)) vint broadcast_limb(const Limbs<P>& token, long word, int plane, int limb) {
    int32 bytes;
    std::memcpy(&bytes, token.x[word / LANES][plane][limb] + word % LANES * 4, sizeof(bytes));
    return bytes - vint{};
}

// The products of a tile with T tokens.
template <int T, class P, int R>
inline void tile_dots(const TileLimbs<P>* tokens, const Tile<P, R>& tile, vfloat (&totals)[T][R]) {
    for (auto& token : totals)
        for (auto& total : token) total = vfloat{};
    for (long group = 0; group < P::row_groups; ++group) {
        vint sums[T][R][LIMBS];
        for (int t = 0; t < T; ++t)
            for (auto& limbs : sums[t]) {
                limbs[0] = vint{} + tokens[t].group_high[group];
                limbs[1] = vint{};
                limbs[2] = vint{} + tokens[t].group_low[group];
            }
        for (long word = group * P::group_words; word < (group + 1) * P::group_words; ++word)
            unrolled<Limbs<P>::planes>([&](auto plane) __attribute__((always_inline)) {
                vuint weights[R];
                for (int r = 0; r < R; ++r) weights[r] = plane_of<P::bits>(tile.word[word][r], plane);
                unrolled<T * LIMBS>([&](auto i) __attribute__((always_inline)) {
                    constexpr int t = i / LIMBS, limb = i % LIMBS;
                    const vint x = broadcast_limb(tokens[t], word, plane, limb);
                    for (int r = 0; r < R; ++r) sums[t][r][limb] = dot_of_bytes(sums[t][r][limb], weights[r], x);
                });
            });
        unrolled<T * R>([&](auto i) __attribute__((always_inline)) {
            constexpr int t = i / R, r = i % R;
            const vint(&limbs)[LIMBS] = sums[t][r];
            const vfloat whole = floats(limbs[0]) * 65536.0f + floats((limbs[1] << 8) + limbs[2]);
            totals[t][r] += tile.scales[group][r] * (tokens[t].unit * whole);
            totals[t][r] += tile.biases[group][r] * tokens[t].sums[group];
        });
    }
}

// The products of a tile with `count` tokens: store(token, totals).
template <class P, int R, class Store>
inline void tile_products(const Tile<P, R>& tile, const TokenLimbs<P>& tokens, long count, Store&& store) {
    in_steps_of<TILE_TOKENS>({0, count}, [&](auto some, long token) {
        vfloat totals[some][R];
        tile_dots(&tokens[token], tile, totals);
        for (int t = 0; t < some; ++t) store(token + t, totals[t]);
    });
}

// The products of the rows of `range` with `count` tokens: row_at(n) is a row, store(row, token, product) takes one.
template <class P, class S, class RowAt, class Store>
inline void row_tiles(const TokenLimbs<P>& tokens, long count, Range range, RowAt&& row_at, Store&& store) {
    constexpr int R = 2;
    const auto tile = std::make_unique_for_overwrite<Tile<P, R>>();
    for (long first = range.begin; first < range.end; first += R * LANES) {
        PackedRow<S> rows[R][LANES];  // behind the last row it comes again, and is not stored
        for (int i = 0; i < R * LANES; ++i) rows[i / LANES][i % LANES] = row_at(std::min(first + i, range.end - 1));
        tile->turn(rows);
        const long valid = std::min<long>(range.end - first, R * LANES);
        tile_products(*tile, tokens, count, [&](long token, const vfloat (&totals)[R]) {
            for (int i = 0; i < valid; ++i) store(first + i, token, totals[i / LANES][i % LANES]);
        });
    }
}

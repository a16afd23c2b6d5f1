// Packed rows times staged activations: `Staged` of cpu_prelude.h, or `Limbs` of cpu_limbs.h. Follows those and
// cpu_tiles.h.

template <class P>
P packed_of(const Limbs<P>&);
template <class P, class Decode>
P packed_of(const Staged<P, Decode>&);

// Limbs where the machine multiplies such weights as bytes, else floats.
template <class P, bool BYTES = fit_bytes<P::bits>>
struct FastestInput {
    using Type = Limbs<P>;
};
template <class P>
struct FastestInput<P, false> {
    using Type = Staged<P, InPlace>;
};

// Tokens that are decoded for at a time where there are no tiles for them.
template <class P>
constexpr int ROW_TOKENS = fit_tiles<P> ? 1 : TILE_TOKENS;

// Adds the products of R packed rows with T staged tokens, lane by lane. The order of summation depends on nothing
// but the template arguments. PREFETCH: bytes to ask for ahead of the words being decoded, 0 for none.
template <int T, int PREFETCH, class Input, class S, int R>
inline void add_products(const Input* staged, const PackedRow<S> (&rows)[R], vfloat (&totals)[R][T]) {
    using P = decltype(packed_of(*staged));
    for (long block = 0; block < P::blocks; ++block) add_block<T, PREFETCH, LANES>(staged, block, rows, totals);
    if constexpr (P::rest > 0) add_block<T, PREFETCH, P::rest>(staged, P::blocks, rows, totals);
}

// The products of R packed rows with T staged tokens.
template <int T, int PREFETCH, class Input, class S, int R>
inline void packed_dots(const Input* staged, const PackedRow<S> (&rows)[R], float (&out)[R][T]) {
    vfloat totals[R][T] = {};
    add_products<T, PREFETCH>(staged, rows, totals);
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) out[r][t] = sum(totals[r][t]);
}

// The products of the rows of `range`, ROWS at a time, with T staged tokens: row_at(n) is a row, store(row, token,
// product) takes one. The rows of one matrix after another, as they lie in memory, come faster than those of several
// in turn.
template <class S, int ROWS, int PREFETCH, int T, class Input, class RowAt, class Store>
inline void row_dots(const Input (&staged)[T], Range range, RowAt&& row_at, Store&& store) {
    in_steps_of<ROWS>(range, [&](auto rows, long n) {
        PackedRow<S> packed[rows];
        for (int i = 0; i < rows; ++i) packed[i] = row_at(n + i);
        float dots[rows][T];
        packed_dots<T, PREFETCH>(staged, packed, dots);
        for (int i = 0; i < rows; ++i)
            for (int t = 0; t < T; ++t) store(n + i, t, dots[i][t]);
    });
}

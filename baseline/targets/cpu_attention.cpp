// Attention over a cache of keys and values, for the engine: not a variant, and not evolved. MLX's CPU build multiplies
// floats by a plain BLAS, at some 2e9 products a second. Follows cpu_prelude.h and `constexpr long D`, a head's width.
//
// Queries that share a head of keys are taken in blocks: each key and value that is loaded serves them all. A block's
// scores are kept whole, so that the sum is that of an ordinary softmax.
#include <algorithm>
#include <limits>
#include <vector>

static_assert(D % LANES == 0, "a head is a whole number of vectors");
constexpr int QUERIES = 8, KEYS = 2, WIDTH = 2;  // sums in registers: queries x keys, then queries x vectors of a value
constexpr int VECTORS = D / LANES;

struct Shape {
    long batch, heads, key_heads, tokens, keys, capacity;
};

// A block of queries of one head of keys: their rows in q and y, and how many keys each sees.
struct Block {
    const float* query[QUERIES];
    float* out[QUERIES];
    long seen[QUERIES], most = 0;
    int count;

    Block(const float* q, float* y, const Shape& shape, long head, long first) {
        const long group = shape.heads / shape.key_heads, rows = group * shape.tokens;
        count = static_cast<int>(std::min<long>(QUERIES, rows - first));
        for (int i = 0; i < QUERIES; ++i) {  // behind the last row it comes again
            const long row = std::min(first + i, rows - 1);
            query[i] = q + (head * rows + row) * D;
            out[i] = y + (head * rows + row) * D;
            seen[i] = shape.keys - shape.tokens + row % shape.tokens + 1;
            most = std::max(most, seen[i]);
        }
    }
};

// Products of a block's queries with N keys: scores[key][query].
template <int N>
inline void add_scores(const Block& block, const float* keys, float scale, float (*scores)[QUERIES]) {
    vfloat sums[N][QUERIES] = {};
    for (int v = 0; v < VECTORS; ++v) {
        vfloat key[N];
        for (int n = 0; n < N; ++n) key[n] = load<vfloat>(keys + n * D + v * LANES);
        for (int i = 0; i < QUERIES; ++i) {
            const vfloat query = load<vfloat>(block.query[i] + v * LANES);
            for (int n = 0; n < N; ++n) sums[n][i] += query * key[n];
        }
    }
    for (int n = 0; n < N; ++n)
        for (int i = 0; i < QUERIES; ++i) scores[n][i] = scale * sum(sums[n][i]);
}

// Turns scores into exp(score - largest), 0 for a key that is not seen; gives their sums' inverses.
inline void soften(const Block& block, float (*scores)[QUERIES], float (&inverse)[QUERIES]) {
    for (int i = 0; i < QUERIES; ++i) {
        float largest = -std::numeric_limits<float>::infinity(), total = 0;
        for (long s = 0; s < block.seen[i]; ++s) largest = std::max(largest, scores[s][i]);
        for (long s = 0; s < block.most; ++s) {
            scores[s][i] = s < block.seen[i] ? std::exp(scores[s][i] - largest) : 0.0f;
            total += scores[s][i];
        }
        inverse[i] = 1.0f / total;
    }
}

// WIDTH vectors of the outputs, from the v-th.
inline void add_values(const Block& block, const float* values, const float (*scores)[QUERIES], int v,
                       const float (&inverse)[QUERIES]) {
    vfloat sums[QUERIES][WIDTH] = {};
    for (long s = 0; s < block.most; ++s)
        for (int w = 0; w < WIDTH; ++w) {
            const vfloat value = load<vfloat>(values + s * D + (v + w) * LANES);
            for (int i = 0; i < QUERIES; ++i) sums[i][w] += scores[s][i] * value;
        }
    for (int i = 0; i < block.count; ++i)
        for (int w = 0; w < WIDTH; ++w) {
            const vfloat total = sums[i][w] * inverse[i];
            std::memcpy(block.out[i] + (v + w) * LANES, &total, sizeof(total));
        }
}

// q [B, H, T, D], keys and values [B, KV, A, D], of which the first S count, scale [1] -> y [B, H, T, D]; the last
// query sees all keys, each before it one key less. dims: B, H, KV, T, S, A.
extern "C" void attend(const void* const* inputs, void* const* outputs, const long* dims, int part, int parts) {
    const Shape shape = {dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]};
    const auto* q = static_cast<const float*>(inputs[0]);
    const float scale = *static_cast<const float*>(inputs[3]);
    const long rows = shape.heads / shape.key_heads * shape.tokens, blocks = (rows + QUERIES - 1) / QUERIES;
    std::vector<float> kept(shape.keys * QUERIES);
    auto* scores = reinterpret_cast<float(*)[QUERIES]>(kept.data());
    in_pieces(share(shape.batch * shape.key_heads * blocks, part, parts), blocks, [&](long head, Range mine) {
        const float* keys = static_cast<const float*>(inputs[1]) + head * shape.capacity * D;
        const float* values = static_cast<const float*>(inputs[2]) + head * shape.capacity * D;
        for (long i = mine.begin; i < mine.end; ++i) {
            const Block block(q, static_cast<float*>(outputs[0]), shape, head, i * QUERIES);
            in_steps_of<KEYS>({0, block.most}, [&](auto n, long s) {
                add_scores<n>(block, keys + s * D, scale, scores + s);
            });
            float inverse[QUERIES];
            soften(block, scores, inverse);
            for (int v = 0; v < VECTORS; v += WIDTH) add_values(block, values, scores, v, inverse);
        }
    });
}

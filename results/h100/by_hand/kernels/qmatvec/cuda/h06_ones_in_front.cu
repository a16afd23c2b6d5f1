/*---
op: qmatvec
target: cuda
tunables: {ROWS: [2, 1, 4, 8], WARPS: [8, 4, 2, 16]}
launch:
  grid: ["ceil_div(N, ROWS * WARPS) * 32 * WARPS", "m", 1]
  threadgroup: ["32 * WARPS", 1, 1]
parent: warp
hypothesis: >
  A conversion runs at half the rate of a multiply-add. With a one in front a value is a float after a shift and a logical
  operation: 1 + q / 2^BITS, whose ones sum to what is known. The cancellation costs one or two bits.
---*/
// helpers
constexpr int WORDS = BITS == 3 ? 3 : BITS == 6 ? 6 : BITS == 2 && GROUP == 32 ? 2 : 4;  // of a lane's chunk
constexpr int VALUES = WORDS * 32 / BITS;  // of a chunk: whole words, all of one group
constexpr int WARP_VALUES = 32 * VALUES;
constexpr int WHOLE = (K + WARP_VALUES - 1) / WARP_VALUES * WARP_VALUES;
constexpr int TILE = WHOLE < 8192 ? WHOLE : 8192;  // values of x in shared memory

struct Row {
    const uint32_t* words;
    const S* scales;
    const S* biases;
};

__device__ constexpr int shift_of(int j) { return j * BITS % 32; }
// q as a float in [1, 2): its bits where a mantissa begins. What the ones add up to is the sum of x, taken off at the end.
__device__ constexpr float field(const uint32_t (&words)[WORDS], int j) {
    constexpr uint32_t mask = (1u << BITS) - 1;
    const int word = j * BITS / 32, shift = shift_of(j), up = 23 - BITS;
    uint32_t q = words[word];
    if (shift + BITS > 32) q = q >> shift | words[word + 1] << (32 - shift), q <<= up;
    else if (shift < up) q <<= up - shift;
    else q >>= shift - up;
    return __uint_as_float((q & mask << up) | 0x3f800000u);
}

// In chunk order a lane's four values lie beside its neighbour's: 16-byte loads of a warp then share no bank.
__device__ int place(int k) {
    const int chunk = k / VALUES, j = k % VALUES;
    return ((chunk / 32 * (VALUES / 4) + j / 4) * 32 + chunk % 32) * 4 + j % 4;
}
// With the sum of each chunk, which every row multiplies by its bias.
__device__ void stage(float* staged, float* sums, const T* x, int count) {
    for (int k = threadIdx.x; k < count; k += blockDim.x) staged[place(k)] = float(x[k]);
    for (int chunk = threadIdx.x; chunk < count / VALUES; chunk += blockDim.x) {
        float sum = 0;
        for (int j = 0; j < VALUES; ++j) sum += float(x[chunk * VALUES + j]);
        sums[chunk] = sum;
    }
}

// An expert's weights start at a multiple of 4 bytes alone.
__device__ void load(uint32_t (&words)[WORDS], const uint32_t* from) {
    if (WORDS == 4 && size_t(from) % 16 == 0) {
        const uint4 four = __ldcs((const uint4*)from);
        words[0] = four.x, words[1] = four.y, words[2 % WORDS] = four.z, words[3 % WORDS] = four.w;
    } else if (WORDS % 2 == 0 && size_t(from) % 8 == 0) {
        for (int i = 0; i < WORDS / 2; ++i) {
            const uint2 two = __ldcs((const uint2*)from + i);
            words[2 * i] = two.x, words[2 * i + 1] = two.y;
        }
    } else {
        for (int i = 0; i < WORDS; ++i) words[i] = __ldcs(from + i);
    }
}

// Adds this lane's part of the rows' products with `count` staged values: scale * sum(q x) + bias * sum(x).
template <int COUNT>
__device__ void add_products(float (&totals)[COUNT], const Row (&rows)[COUNT], const float* staged, const float* sums, int count) {
    const int lane = threadIdx.x % 32;
    for (int chunk = lane; chunk < count / VALUES; chunk += 32) {
        uint32_t words[COUNT][WORDS];
        float dots[COUNT] = {};
        const float sum = sums[chunk];
        for (int i = 0; i < COUNT; ++i) load(words[i], rows[i].words + chunk * WORDS);
#pragma unroll
        for (int j = 0; j < VALUES; j += 4) {
            const float4 x = *(const float4*)(staged + ((chunk / 32 * (VALUES / 4) + j / 4) * 32 + lane) * 4);
            const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                for (int i = 0; i < COUNT; ++i) dots[i] = fmaf(field(words[i], j + l), values[l], dots[i]);
            }
        }
        const int group = chunk * VALUES / GROUP;
        for (int i = 0; i < COUNT; ++i) {
            const float scale = float(rows[i].scales[group]);
            totals[i] += scale * ((dots[i] - sum) * float(1u << BITS)) + float(rows[i].biases[group]) * sum;
        }
    }
}
__device__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}
// body
__shared__ alignas(16) float staged[TILE];
__shared__ float sums[TILE / VALUES];
const int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
const size_t token = blockIdx.y;
float totals[ROWS] = {};
for (int start = 0; start < K; start += TILE) {
    const int count = min(TILE, K - start);
    if (start > 0) __syncthreads();
    stage(staged, sums, x + token * K + start, count);
    __syncthreads();
    Row rows[ROWS];
    for (int i = 0; i < ROWS; ++i) {
        const size_t n = min(first + i, N - 1);  // past the end, the last row again
        const size_t group = n * (K / GROUP) + start / GROUP;
        rows[i] = {w + n * (K * BITS / 32) + start / 32 * BITS, scales + group, biases + group};
    }
    add_products(totals, rows, staged, sums, count);
}
for (int i = 0; i < ROWS; ++i) {
    const float total = warp_sum(totals[i]);
    if (threadIdx.x % 32 == 0 && first + i < N) y[token * N + first + i] = T(total);
}

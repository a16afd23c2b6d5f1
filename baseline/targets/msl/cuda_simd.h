// Metal's threads in CUDA: attributes, barriers, SIMD-group and quad-group functions, atomics.
// A SIMD group is a warp. METAL_WHOLE_SIMD_GROUPS is 1 where the launch fills every warp; where it is 0, a function
// asks which lanes there are.

namespace metal {

// Where this thread is in a grid that counts threads. CUDA launches whole blocks; in a ragged grid the threads of
// the last threadgroups are numbered anew within the smaller group, as Metal numbers them, and the rest must return.
struct Geometry {
    uint3 group, extent, position, groups, whole, grid;
    uint index;
    bool exists;
};
__device__ inline Geometry even_geometry() {
    const uint3 size(blockDim.x, blockDim.y, blockDim.z), count(gridDim.x, gridDim.y, gridDim.z);
    const uint3 position(threadIdx.x, threadIdx.y, threadIdx.z);
    const uint index = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    return {uint3(blockIdx.x, blockIdx.y, blockIdx.z), size, position, count, size, size * count, index, true};
}
__device__ inline Geometry ragged_geometry(uint x, uint y, uint z) {
    Geometry g = even_geometry();
    g.grid = uint3(x, y, z);
    g.extent = min(g.whole, g.grid - g.group * g.whole);
    g.position = uint3(g.index % g.extent.x, g.index / g.extent.x % g.extent.y, g.index / (g.extent.x * g.extent.y));
    g.exists = g.index < g.extent.x * g.extent.y * g.extent.z;
    return g;
}
__device__ inline uint simd_groups(uint3 extent) { return (extent.x * extent.y * extent.z + 31) / 32; }

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
__device__ inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
__device__ inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
__device__ inline void simdgroup_barrier(mem_flags) { __syncwarp(); }

__device__ inline uint lanes() { return METAL_WHOLE_SIMD_GROUPS ? 0xffffffffu : __activemask(); }
__device__ inline uint this_lane() {
    uint lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// The value of lane `from`, for any trivially copyable type, a 32-bit word at a time.
template <typename T>
__device__ inline T from_lane(T value, uint from) {
    union {
        uint words[(sizeof(T) + 3) / 4];
        T value;
    } bits = {};
    bits.value = value;
    for (uint& word : bits.words) word = __shfl_sync(lanes(), word, from);
    return bits.value;
}
template <typename T>
__device__ inline T simd_shuffle(T value, uint lane) { return from_lane(value, lane); }
template <typename T>
__device__ inline T simd_broadcast(T value, uint lane) { return from_lane(value, lane); }
template <typename T>
__device__ inline T simd_broadcast_first(T value) { return from_lane(value, ctz(lanes())); }
template <typename T>
__device__ inline T simd_shuffle_xor(T value, uint mask) { return from_lane(value, this_lane() ^ mask); }
template <typename T>
__device__ inline T simd_shuffle_up(T value, uint delta) { return from_lane(value, this_lane() - delta); }
template <typename T>
__device__ inline T simd_shuffle_down(T value, uint delta) { return from_lane(value, this_lane() + delta); }
template <typename T>
__device__ inline T simd_shuffle_rotate_up(T value, uint delta) { return from_lane(value, (this_lane() - delta) & 31); }
template <typename T>
__device__ inline T simd_shuffle_rotate_down(T value, uint delta) {
    return from_lane(value, (this_lane() + delta) & 31);
}
template <typename T>
__device__ inline T simd_shuffle_and_fill_up(T value, T fill, uint delta) {
    const T a = simd_shuffle_rotate_up(value, delta), b = simd_shuffle_rotate_up(fill, delta);
    return this_lane() < delta ? b : a;
}
template <typename T>
__device__ inline T simd_shuffle_and_fill_down(T value, T fill, uint delta) {
    const T a = simd_shuffle_rotate_down(value, delta), b = simd_shuffle_rotate_down(fill, delta);
    return this_lane() + delta > 31 ? b : a;
}

struct simd_vote {
    using vote_t = ulong;
    vote_t votes;
    __device__ explicit simd_vote(vote_t v) : votes(v) {}
    __device__ explicit operator vote_t() const { return votes; }
    __device__ bool all() const { return votes == lanes(); }
    __device__ bool any() const { return votes != 0; }
};
__device__ inline simd_vote simd_ballot(bool value) { return simd_vote(__ballot_sync(lanes(), value)); }
__device__ inline simd_vote simd_active_threads_mask() { return simd_vote(__activemask()); }
__device__ inline bool simd_all(bool value) { return __all_sync(lanes(), value); }
__device__ inline bool simd_any(bool value) { return __any_sync(lanes(), value); }
__device__ inline bool simd_is_first() { return this_lane() == ctz(__activemask()); }

// Whole SIMD groups reduce by a butterfly of ascending distance, the tree that Apple's GPUs use.
template <typename T, typename Operation>
__device__ inline T simd_reduce(T value, Operation operation) {
#if METAL_WHOLE_SIMD_GROUPS
    for (uint distance = 1; distance < 32; distance *= 2) {
        value = operation(value, simd_shuffle_xor(value, distance));
    }
    return value;
#else
    const uint present = lanes();
    const uint first = ctz(present);
    T total = from_lane(value, first);
    for (uint lane = first + 1; lane < 32; ++lane) {
        if (present >> lane & 1) total = operation(total, from_lane(value, lane));
    }
    return total;
#endif
}
// Inclusive: a lane's result covers the lanes up to itself.
template <typename T, typename Operation>
__device__ inline T simd_scan(T value, Operation operation) {
    for (uint distance = 1; distance < 32; distance *= 2) {
        const T before = simd_shuffle_up(value, distance);
        if (this_lane() >= distance) value = operation(before, value);
    }
    return value;
}
template <typename T, typename Operation>
__device__ inline T quad_reduce(T value, Operation operation) {
    value = operation(value, simd_shuffle_xor(value, 1));
    return operation(value, simd_shuffle_xor(value, 2));
}

#define METAL_REDUCTION(name, type, expression)                                                          \
    struct operation_##name {                                                                            \
        template <typename T>                                                                            \
        __device__ T operator()(T a, T b) const { return T(expression); }                                \
    };                                                                                                   \
    template <typename T>                                                                                \
    __device__ inline T simd_##name(T value) { return simd_reduce(value, operation_##name()); }          \
    template <typename T>                                                                                \
    __device__ inline T quad_##name(T value) { return quad_reduce(value, operation_##name()); }
METAL_REDUCTION(sum, T, a + b)
METAL_REDUCTION(product, T, a * b)
METAL_REDUCTION(min, T, min(a, b))
METAL_REDUCTION(max, T, max(a, b))
METAL_REDUCTION(and, T, a & b)
METAL_REDUCTION(or, T, a | b)
METAL_REDUCTION(xor, T, a ^ b)
#undef METAL_REDUCTION

template <typename T>
__device__ inline T simd_prefix_inclusive_sum(T value) { return simd_scan(value, operation_sum()); }
template <typename T>
__device__ inline T simd_prefix_inclusive_product(T value) { return simd_scan(value, operation_product()); }
template <typename T>
__device__ inline T simd_prefix_exclusive_sum(T value) {
    const T before = simd_shuffle_up(simd_prefix_inclusive_sum(value), 1);
    return this_lane() == 0 ? T(0) : before;
}
template <typename T>
__device__ inline T simd_prefix_exclusive_product(T value) {
    const T before = simd_shuffle_up(simd_prefix_inclusive_product(value), 1);
    return this_lane() == 0 ? T(1) : before;
}

template <typename T>
__device__ inline T quad_broadcast(T value, uint lane) { return from_lane(value, (this_lane() & ~3u) + lane); }
template <typename T>
__device__ inline T quad_shuffle(T value, uint lane) { return quad_broadcast(value, lane); }
template <typename T>
__device__ inline T quad_shuffle_xor(T value, uint mask) { return from_lane(value, this_lane() ^ mask); }
template <typename T>
__device__ inline T quad_shuffle_up(T value, uint delta) { return from_lane(value, this_lane() - delta); }
template <typename T>
__device__ inline T quad_shuffle_down(T value, uint delta) { return from_lane(value, this_lane() + delta); }

enum memory_order { memory_order_relaxed };
template <typename T>
struct atomic {
    T value;
};
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_float = atomic<float>;
using atomic_bool = atomic<bool>;

template <typename T>
__device__ inline T atomic_load_explicit(const atomic<T>* object, memory_order) {
    return *const_cast<const volatile T*>(&object->value);
}
template <typename T, typename U>
__device__ inline void atomic_store_explicit(atomic<T>* object, U value, memory_order) {
    *const_cast<volatile T*>(&object->value) = T(value);
}
#define METAL_ATOMIC(name, expression)                                                                   \
    template <typename T, typename U>                                                                    \
    __device__ inline T atomic_##name##_explicit(atomic<T>* object, U value, memory_order) {             \
        return expression(&object->value, T(value));                                                     \
    }
METAL_ATOMIC(exchange, ::atomicExch)
METAL_ATOMIC(fetch_add, ::atomicAdd)
METAL_ATOMIC(fetch_min, ::atomicMin)
METAL_ATOMIC(fetch_max, ::atomicMax)
METAL_ATOMIC(fetch_and, ::atomicAnd)
METAL_ATOMIC(fetch_or, ::atomicOr)
METAL_ATOMIC(fetch_xor, ::atomicXor)
#undef METAL_ATOMIC
template <typename T, typename U>
__device__ inline T atomic_fetch_sub_explicit(atomic<T>* object, U value, memory_order) {
    return ::atomicAdd(&object->value, T(0) - T(value));
}
template <typename T>
__device__ inline bool atomic_compare_exchange_weak_explicit(
    atomic<T>* object, T* expected, T desired, memory_order, memory_order) {
    static_assert(sizeof(T) == 4, "compare and exchange is for 32-bit types");
    const int wanted = as_type<int>(*expected);
    const int found = ::atomicCAS(reinterpret_cast<int*>(&object->value), wanted, as_type<int>(desired));
    *expected = as_type<T>(found);
    return found == wanted;
}

}  // namespace metal

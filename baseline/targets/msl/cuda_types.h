// Metal's words and scalar types in CUDA, for a Metal body compiled by mx.fast.cuda_kernel.
// The texts cuda_types.h, cuda_vectors.h, cuda_math.h and cuda_simd.h precede the kernel in this order.
// Everything lives in namespace metal, the kernel too, so that these names hide CUDA's own of the same name.
#include <cuda/std/limits>
#include <cuda/std/type_traits>

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fc00000)
#endif
#ifndef MAXFLOAT
#define MAXFLOAT 3.402823466e+38f
#endif
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#endif
#define HALF_MAX half(65504.0f)
#define M_E_F 2.718281828f
#define M_LOG2E_F 1.442695041f
#define M_LOG10E_F 0.434294482f
#define M_LN2_F 0.693147181f
#define M_LN10_F 2.302585093f
#define M_PI_F 3.141592654f
#define M_PI_2_F 1.570796327f
#define M_1_PI_F 0.318309886f
#define M_SQRT2_F 1.414213562f

namespace metal {

using uint = unsigned int;
using uchar = unsigned char;
using ushort = unsigned short;
using ulong = unsigned long;
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;
using ptrdiff_t = long;

template <bool condition>
using enable_if = ::cuda::std::enable_if_t<condition, int>;

// A 16-bit float. CUDA's own types convert to every arithmetic type, which makes `half * float` ambiguous;
// these convert to float alone, and an operation of two of them is rounded, as Metal's is.
template <typename Native>
struct small_float {
    Native native;

    small_float() = default;
    __device__ small_float(Native value) : native(value) {}
    template <typename U, enable_if<::cuda::std::is_arithmetic_v<U>> = 0>
    __device__ constexpr small_float(U value) : native(static_cast<float>(value)) {}
    template <typename Other, enable_if<!::cuda::std::is_same_v<Other, Native>> = 0>
    __device__ explicit small_float(small_float<Other> value) : native(static_cast<float>(value)) {}
    __device__ operator float() const { return static_cast<float>(native); }

    __device__ small_float& operator+=(float b) { return *this = small_float(float(*this) + b); }
    __device__ small_float& operator-=(float b) { return *this = small_float(float(*this) - b); }
    __device__ small_float& operator*=(float b) { return *this = small_float(float(*this) * b); }
    __device__ small_float& operator/=(float b) { return *this = small_float(float(*this) / b); }
};
using half = small_float<__half>;
using float16_t = half;
using bfloat = small_float<__nv_bfloat16>;
using bfloat16_t = bfloat;

#define METAL_SMALL_OPERATOR(op)                                                                         \
    template <typename N>                                                                                \
    __device__ inline small_float<N> operator op(small_float<N> a, small_float<N> b) {                   \
        return float(a) op float(b);                                                                     \
    }                                                                                                    \
    template <typename N, typename I, enable_if<::cuda::std::is_integral_v<I>> = 0>                      \
    __device__ inline small_float<N> operator op(small_float<N> a, I b) {                                \
        return float(a) op static_cast<float>(b);                                                        \
    }                                                                                                    \
    template <typename N, typename I, enable_if<::cuda::std::is_integral_v<I>> = 0>                      \
    __device__ inline small_float<N> operator op(I a, small_float<N> b) {                                \
        return static_cast<float>(a) op float(b);                                                        \
    }
METAL_SMALL_OPERATOR(+)
METAL_SMALL_OPERATOR(-)
METAL_SMALL_OPERATOR(*)
METAL_SMALL_OPERATOR(/)
#undef METAL_SMALL_OPERATOR

template <typename N>
__device__ inline small_float<N> operator-(small_float<N> a) {
    return -float(a);
}

template <typename T>
inline constexpr bool is_small = false;
template <typename N>
inline constexpr bool is_small<small_float<N>> = true;
template <typename T>
inline constexpr bool is_scalar = ::cuda::std::is_arithmetic_v<T> || is_small<T>;
template <typename T>
inline constexpr bool is_real = ::cuda::std::is_same_v<T, float> || is_small<T>;

template <typename T>
struct numeric_limits : ::cuda::std::numeric_limits<T> {};
template <typename N>
struct numeric_limits<small_float<N>> {
    static constexpr bool is_half = ::cuda::std::is_same_v<N, __half>;
    __device__ static small_float<N> infinity() { return INFINITY; }
    __device__ static small_float<N> quiet_NaN() { return NAN; }
    __device__ static small_float<N> max() { return is_half ? 65504.0f : 3.38953139e38f; }
    __device__ static small_float<N> lowest() { return is_half ? -65504.0f : -3.38953139e38f; }
    __device__ static small_float<N> min() { return is_half ? 6.103515625e-05f : 1.17549435e-38f; }
    __device__ static small_float<N> epsilon() { return is_half ? 0.0009765625f : 0.0078125f; }
};

template <typename To, typename From>
__device__ inline To as_type(From value) {
    static_assert(sizeof(To) == sizeof(From), "as_type needs types of one size");
    union {
        From from;
        To to;
    } bits;
    bits.from = value;
    return bits.to;
}

}  // namespace metal

// Metal's math in CUDA, for scalars and, element by element, for vectors. fast:: takes CUDA's approximations.

namespace metal {

#define METAL_EACH_1(name)                                                                               \
    template <typename T, int N>                                                                         \
    __device__ inline auto name(vec<T, N> a) {                                                           \
        vec<decltype(name(T())), N> v;                                                                   \
        for (int i = 0; i < N; ++i) v[i] = name(a[i]);                                                   \
        return v;                                                                                        \
    }
#define METAL_EACH_2(name)                                                                               \
    template <typename T, int N>                                                                         \
    __device__ inline vec<T, N> name(vec<T, N> a, vec<T, N> b) {                                         \
        for (int i = 0; i < N; ++i) a[i] = name(a[i], b[i]);                                             \
        return a;                                                                                        \
    }                                                                                                    \
    template <typename T, int N>                                                                         \
    __device__ inline vec<T, N> name(vec<T, N> a, T b) { return name(a, vec<T, N>(b)); }
#define METAL_EACH_3(name)                                                                               \
    template <typename T, int N>                                                                         \
    __device__ inline vec<T, N> name(vec<T, N> a, vec<T, N> b, vec<T, N> c) {                            \
        for (int i = 0; i < N; ++i) a[i] = name(a[i], b[i], c[i]);                                       \
        return a;                                                                                        \
    }
// A function of reals, computed in float; half gives half, an integer counts as a float.
#define METAL_REAL_1(name, expression)                                                                   \
    __device__ inline float name(float a) { return expression; }                                         \
    template <typename N>                                                                                \
    __device__ inline small_float<N> name(small_float<N> a) { return name(float(a)); }                   \
    METAL_EACH_1(name)
#define METAL_REAL_2(name, expression)                                                                   \
    __device__ inline float name(float a, float b) { return expression; }                                \
    template <typename N>                                                                                \
    __device__ inline small_float<N> name(small_float<N> a, small_float<N> b) {                          \
        return name(float(a), float(b));                                                                 \
    }                                                                                                    \
    METAL_EACH_2(name)
#define METAL_REAL_3(name, expression)                                                                   \
    __device__ inline float name(float a, float b, float c) { return expression; }                       \
    template <typename N>                                                                                \
    __device__ inline small_float<N> name(small_float<N> a, small_float<N> b, small_float<N> c) {        \
        return name(float(a), float(b), float(c));                                                       \
    }                                                                                                    \
    METAL_EACH_3(name)

#define METAL_TRANSCENDENTALS(exp_, exp2_, exp10_, log_, log2_, log10_, sin_, cos_, tan_, pow_, sqrt_, div_)  \
    METAL_REAL_1(exp, exp_(a))                                                                           \
    METAL_REAL_1(exp2, exp2_(a))                                                                         \
    METAL_REAL_1(exp10, exp10_(a))                                                                       \
    METAL_REAL_1(log, log_(a))                                                                           \
    METAL_REAL_1(log2, log2_(a))                                                                         \
    METAL_REAL_1(log10, log10_(a))                                                                       \
    METAL_REAL_1(sin, sin_(a))                                                                           \
    METAL_REAL_1(cos, cos_(a))                                                                           \
    METAL_REAL_1(tan, tan_(a))                                                                           \
    METAL_REAL_1(sqrt, sqrt_(a))                                                                         \
    METAL_REAL_1(rsqrt, ::rsqrtf(a))                                                                     \
    METAL_REAL_1(asin, ::asinf(a))                                                                       \
    METAL_REAL_1(acos, ::acosf(a))                                                                       \
    METAL_REAL_1(atan, ::atanf(a))                                                                       \
    METAL_REAL_1(sinh, ::sinhf(a))                                                                       \
    METAL_REAL_1(cosh, ::coshf(a))                                                                       \
    METAL_REAL_1(tanh, ::tanhf(a))                                                                       \
    METAL_REAL_1(ceil, ::ceilf(a))                                                                       \
    METAL_REAL_1(floor, ::floorf(a))                                                                     \
    METAL_REAL_1(trunc, ::truncf(a))                                                                     \
    METAL_REAL_1(round, ::roundf(a))                                                                     \
    METAL_REAL_1(rint, ::rintf(a))                                                                       \
    METAL_REAL_1(fract, a - ::floorf(a))                                                                 \
    METAL_REAL_1(fabs, ::fabsf(a))                                                                       \
    METAL_REAL_2(pow, pow_(a, b))                                                                        \
    METAL_REAL_2(powr, pow_(a, b))                                                                       \
    METAL_REAL_2(divide, div_(a, b))                                                                     \
    METAL_REAL_2(atan2, ::atan2f(a, b))                                                                  \
    METAL_REAL_2(fmod, ::fmodf(a, b))                                                                    \
    METAL_REAL_2(fmin, ::fminf(a, b))                                                                    \
    METAL_REAL_2(fmax, ::fmaxf(a, b))                                                                    \
    METAL_REAL_2(fdim, ::fdimf(a, b))                                                                    \
    METAL_REAL_2(copysign, ::copysignf(a, b))                                                            \
    METAL_REAL_2(step, b < a ? 0.0f : 1.0f)                                                              \
    METAL_REAL_3(fma, ::fmaf(a, b, c))

METAL_TRANSCENDENTALS(::expf, ::exp2f, ::exp10f, ::logf, ::log2f, ::log10f, ::sinf, ::cosf,
                      ::tanf, ::powf, ::sqrtf, ::__fdiv_rn)
namespace precise {
METAL_TRANSCENDENTALS(::expf, ::exp2f, ::exp10f, ::logf, ::log2f, ::log10f, ::sinf, ::cosf,
                      ::tanf, ::powf, ::sqrtf, ::__fdiv_rn)
}
namespace fast {
METAL_TRANSCENDENTALS(::__expf, ::exp2f, ::__exp10f, ::__logf, ::__log2f, ::__log10f, ::__sinf,
                      ::__cosf, ::__tanf, ::__powf, ::sqrtf, ::__fdividef)
}
#undef METAL_TRANSCENDENTALS

template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T min(T a, T b) {
    if constexpr (is_real<T>) return ::fminf(a, b);
    else return b < a ? b : a;
}
template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T max(T a, T b) {
    if constexpr (is_real<T>) return ::fmaxf(a, b);
    else return a < b ? b : a;
}
template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T clamp(T value, T low, T high) { return min(max(value, low), high); }
template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T abs(T a) {
    if constexpr (is_real<T>) return ::fabsf(a);
    else return a < 0 ? -a : a;
}
METAL_EACH_2(min)
METAL_EACH_2(max)
METAL_EACH_3(clamp)
METAL_EACH_1(abs)
template <typename T, int N>
__device__ inline vec<T, N> clamp(vec<T, N> a, T low, T high) { return clamp(a, vec<T, N>(low), vec<T, N>(high)); }
template <typename T>
__device__ inline T min3(T a, T b, T c) { return min(min(a, b), c); }
template <typename T>
__device__ inline T max3(T a, T b, T c) { return max(max(a, b), c); }
template <typename T>
__device__ inline T saturate(T a) { return clamp(a, T(0), T(1)); }
template <typename T, typename U>
__device__ inline T mix(T a, T b, U t) { return a + (b - a) * t; }
template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T sign(T a) { return T(float(a) > 0 ? 1.0f : float(a) < 0 ? -1.0f : 0.0f); }
template <typename T>
__device__ inline T smoothstep(T low, T high, T a) {
    const T t = saturate((a - low) / (high - low));
    return t * t * (T(3) - T(2) * t);
}
__device__ inline bool isnan(float a) { return a != a; }
__device__ inline bool isinf(float a) { return ::fabsf(a) == INFINITY; }
__device__ inline bool isfinite(float a) { return ::fabsf(a) < INFINITY; }
__device__ inline bool signbit(float a) { return __float_as_int(a) < 0; }
__device__ inline float ldexp(float a, int exponent) { return ::ldexpf(a, exponent); }
METAL_EACH_1(isnan)
METAL_EACH_1(isinf)
METAL_EACH_1(isfinite)

template <typename T, enable_if<is_scalar<T>> = 0>
__device__ inline T select(T otherwise, T chosen, bool condition) { return condition ? chosen : otherwise; }
template <typename T, int N>
__device__ inline vec<T, N> select(vec<T, N> otherwise, vec<T, N> chosen, vec<bool, N> condition) {
    for (int i = 0; i < N; ++i) otherwise[i] = condition[i] ? chosen[i] : otherwise[i];
    return otherwise;
}
template <int N>
__device__ inline bool any(vec<bool, N> v) {
    bool found = false;
    for (int i = 0; i < N; ++i) found |= v[i];
    return found;
}
template <int N>
__device__ inline bool all(vec<bool, N> v) { return !any(!v); }

template <typename T, int N>
__device__ inline T dot(vec<T, N> a, vec<T, N> b) {
    T total = a[0] * b[0];
    for (int i = 1; i < N; ++i) total += a[i] * b[i];
    return total;
}
template <typename T, int N>
__device__ inline T length_squared(vec<T, N> a) { return dot(a, a); }
template <typename T, int N>
__device__ inline T length(vec<T, N> a) { return sqrt(dot(a, a)); }
template <typename T, int N>
__device__ inline T distance(vec<T, N> a, vec<T, N> b) { return length(a - b); }
template <typename T, int N>
__device__ inline vec<T, N> normalize(vec<T, N> a) { return a * rsqrt(dot(a, a)); }

template <typename T, enable_if<sizeof(T) <= 4> = 0>
__device__ inline T popcount(T a) { return ::__popc(::cuda::std::make_unsigned_t<T>(a)); }
__device__ inline uint clz(uint a) { return ::__clz(a); }
__device__ inline uint ctz(uint a) { return a ? ::__ffs(a) - 1 : 32; }
__device__ inline uint reverse_bits(uint a) { return ::__brev(a); }
__device__ inline uint mulhi(uint a, uint b) { return ::__umulhi(a, b); }
__device__ inline int mulhi(int a, int b) { return ::__mulhi(a, b); }
__device__ inline uint rotate(uint a, uint count) { return ::__funnelshift_l(a, a, count); }
template <typename T, enable_if<::cuda::std::is_integral_v<T>> = 0>
__device__ inline T extract_bits(T a, uint offset, uint bits) {
    if (bits == 0) return 0;
    const uint unused = sizeof(T) * 8 - bits;
    return T(T(a << (unused - offset)) >> unused);  // an arithmetic shift for a signed type
}
template <typename T, enable_if<::cuda::std::is_integral_v<T>> = 0>
__device__ inline T insert_bits(T base, T inserted, uint offset, uint bits) {
    const T mask = bits >= sizeof(T) * 8 ? T(~T(0)) : T(((T(1) << bits) - 1) << offset);
    return T((base & ~mask) | ((inserted << offset) & mask));
}
METAL_EACH_1(popcount)
METAL_EACH_1(clz)
METAL_EACH_1(ctz)
METAL_EACH_1(reverse_bits)
#undef METAL_REAL_1
#undef METAL_REAL_2
#undef METAL_REAL_3
#undef METAL_EACH_1
#undef METAL_EACH_2
#undef METAL_EACH_3

}  // namespace metal

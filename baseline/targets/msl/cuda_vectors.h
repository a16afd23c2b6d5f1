// Metal's vectors of two, three and four in CUDA: constructors, operators, contiguous swizzles, packed forms.

namespace metal {

// Elements in a row at the alignment of one: what packed_float4 and its like are.
template <typename T, int N>
struct packed;
template <typename T, int N>
struct vec;

#define METAL_PACKED(n, ...)                                                                             \
    template <typename T>                                                                                \
    struct packed<T, n> {                                                                                \
        T __VA_ARGS__;                                                                                   \
        packed() = default;                                                                              \
        __device__ packed(vec<T, n> v) { for (int i = 0; i < n; ++i) (*this)[i] = v[i]; }                \
        __device__ T& operator[](int i) { return (&x)[i]; }                                              \
        __device__ T operator[](int i) const { return (&x)[i]; }                                         \
        __device__ operator vec<T, n>() const {                                                          \
            vec<T, n> v;                                                                                 \
            for (int i = 0; i < n; ++i) v[i] = (*this)[i];                                               \
            return v;                                                                                    \
        }                                                                                                \
    };
METAL_PACKED(2, x, y)
METAL_PACKED(3, x, y, z)
METAL_PACKED(4, x, y, z, w)
#undef METAL_PACKED

// What the three sizes share.
#define METAL_VECTOR_COMMON(n)                                                                           \
    vec() = default;                                                                                     \
    template <typename U, enable_if<is_scalar<U>> = 0>                                                   \
    __device__ vec(U value) {                                                                            \
        for (int i = 0; i < n; ++i) e[i] = static_cast<T>(value);                                        \
    }                                                                                                    \
    template <typename U, enable_if<!::cuda::std::is_same_v<T, U>> = 0>                                  \
    __device__ explicit vec(vec<U, n> v) {                                                               \
        for (int i = 0; i < n; ++i) e[i] = static_cast<T>(v[i]);                                         \
    }                                                                                                    \
    template <typename U, enable_if<!::cuda::std::is_same_v<T, U>> = 0>                                  \
    __device__ explicit vec(packed<U, n> v) {                                                            \
        for (int i = 0; i < n; ++i) e[i] = static_cast<T>(v[i]);                                         \
    }                                                                                                    \
    __device__ T& operator[](int i) { return e[i]; }                                                     \
    __device__ T operator[](int i) const { return e[i]; }

template <typename T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
    union {
        T e[2];
        struct { T x, y; };
        struct { T r, g; };
    };
    METAL_VECTOR_COMMON(2)
    template <typename A, typename B>
    __device__ vec(A a, B b) : e{static_cast<T>(a), static_cast<T>(b)} {}
};

template <typename T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
    union {
        T e[3];
        struct { T x, y, z; };
        struct { T r, g, b; };
        packed<T, 2> xy;
        struct { T before_yz; packed<T, 2> yz; };
    };
    METAL_VECTOR_COMMON(3)
    template <typename A, typename B, typename C>
    __device__ vec(A a, B b, C c) : e{static_cast<T>(a), static_cast<T>(b), static_cast<T>(c)} {}
    template <typename C>
    __device__ vec(vec<T, 2> a, C c) : e{a[0], a[1], static_cast<T>(c)} {}
};

template <typename T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
    union {
        T e[4];
        struct { T x, y, z, w; };
        struct { T r, g, b, a; };
        packed<T, 2> xy;
        packed<T, 3> xyz;
        struct { T before_yz; packed<T, 2> yz; };
        struct { T before_zw[2]; packed<T, 2> zw; };
    };
    METAL_VECTOR_COMMON(4)
    template <typename A, typename B, typename C, typename D>
    __device__ vec(A a, B b, C c, D d)
        : e{static_cast<T>(a), static_cast<T>(b), static_cast<T>(c), static_cast<T>(d)} {}
    __device__ vec(vec<T, 2> a, vec<T, 2> b) : e{a[0], a[1], b[0], b[1]} {}
    template <typename C, typename D>
    __device__ vec(vec<T, 2> a, C c, D d) : e{a[0], a[1], static_cast<T>(c), static_cast<T>(d)} {}
    template <typename D>
    __device__ vec(vec<T, 3> a, D d) : e{a[0], a[1], a[2], static_cast<T>(d)} {}
};
#undef METAL_VECTOR_COMMON

// `result` is the element type that the operator gives.
#define METAL_VECTOR_OPERATOR(op, result)                                                                \
    template <typename T, int N>                                                                         \
    __device__ inline vec<result, N> operator op(vec<T, N> a, vec<T, N> b) {                             \
        vec<result, N> v;                                                                                \
        for (int i = 0; i < N; ++i) v[i] = static_cast<result>(a[i] op b[i]);                            \
        return v;                                                                                        \
    }                                                                                                    \
    template <typename T, int N, typename U, enable_if<is_scalar<U>> = 0>                                \
    __device__ inline vec<result, N> operator op(vec<T, N> a, U b) { return a op vec<T, N>(b); }         \
    template <typename T, int N, typename U, enable_if<is_scalar<U>> = 0>                                \
    __device__ inline vec<result, N> operator op(U a, vec<T, N> b) { return vec<T, N>(a) op b; }
#define METAL_VECTOR_ARITHMETIC(op)                                                                      \
    METAL_VECTOR_OPERATOR(op, T)                                                                         \
    template <typename T, int N, typename U>                                                             \
    __device__ inline vec<T, N>& operator op##=(vec<T, N>& a, U b) { return a = a op b; }
METAL_VECTOR_ARITHMETIC(+)
METAL_VECTOR_ARITHMETIC(-)
METAL_VECTOR_ARITHMETIC(*)
METAL_VECTOR_ARITHMETIC(/)
METAL_VECTOR_ARITHMETIC(%)
METAL_VECTOR_ARITHMETIC(&)
METAL_VECTOR_ARITHMETIC(|)
METAL_VECTOR_ARITHMETIC(^)
METAL_VECTOR_ARITHMETIC(<<)
METAL_VECTOR_ARITHMETIC(>>)
METAL_VECTOR_OPERATOR(==, bool)
METAL_VECTOR_OPERATOR(!=, bool)
METAL_VECTOR_OPERATOR(<, bool)
METAL_VECTOR_OPERATOR(<=, bool)
METAL_VECTOR_OPERATOR(>, bool)
METAL_VECTOR_OPERATOR(>=, bool)
METAL_VECTOR_OPERATOR(&&, bool)
METAL_VECTOR_OPERATOR(||, bool)
#undef METAL_VECTOR_ARITHMETIC
#undef METAL_VECTOR_OPERATOR

#define METAL_VECTOR_UNARY(op)                                                                           \
    template <typename T, int N>                                                                         \
    __device__ inline vec<T, N> operator op(vec<T, N> a) {                                               \
        for (int i = 0; i < N; ++i) a[i] = static_cast<T>(op a[i]);                                      \
        return a;                                                                                        \
    }
METAL_VECTOR_UNARY(-)
METAL_VECTOR_UNARY(~)
METAL_VECTOR_UNARY(!)
#undef METAL_VECTOR_UNARY

#define METAL_VECTOR_NAMES(type)                                                                         \
    using type##2 = vec<type, 2>;                                                                        \
    using type##3 = vec<type, 3>;                                                                        \
    using type##4 = vec<type, 4>;                                                                        \
    using packed_##type##2 = packed<type, 2>;                                                            \
    using packed_##type##3 = packed<type, 3>;                                                            \
    using packed_##type##4 = packed<type, 4>;
METAL_VECTOR_NAMES(float)
METAL_VECTOR_NAMES(half)
METAL_VECTOR_NAMES(bfloat)
METAL_VECTOR_NAMES(char)
METAL_VECTOR_NAMES(uchar)
METAL_VECTOR_NAMES(short)
METAL_VECTOR_NAMES(ushort)
METAL_VECTOR_NAMES(int)
METAL_VECTOR_NAMES(uint)
METAL_VECTOR_NAMES(long)
METAL_VECTOR_NAMES(ulong)
METAL_VECTOR_NAMES(bool)
#undef METAL_VECTOR_NAMES

}  // namespace metal

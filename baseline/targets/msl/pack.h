// MSL's <metal_pack>: vectors as integers of 8 or 16 bits an element, the first one in the lowest bits. `unorm` stands
// for [0, 1] and `snorm` for [-1, 1]; what lies outside is clamped, and a NaN becomes 0.
#pragma once

#include "math.h"

namespace metal {
namespace nf {

template <class T>
NF_FN std::uint32_t packed_norm(float x) {
  constexpr float least = std::is_signed_v<T> ? -1.0f : 0.0f;
  const float clamped = x != x ? 0.0f : x < least ? least : x > 1.0f ? 1.0f : x;
  return static_cast<std::make_unsigned_t<T>>(std::lrint(clamped * std::numeric_limits<T>::max()));
}

template <class T>
NF_FN float unpacked_norm(std::uint32_t bits) {
  const float value = static_cast<float>(static_cast<T>(bits)) / std::numeric_limits<T>::max();
  return value < -1.0f ? -1.0f : value;
}

}  // namespace nf

// An integer T for each of n elements, in names as pack_float_to_unorm4x8 and unpack_unorm4x8_to_float.
#define NF_PACK(suffix, n, T)                                                                          \
  NF_FN std::uint32_t pack_float_to_##suffix(vec<float, n> v) {                                        \
    std::uint32_t bits = 0;                                                                            \
    for (int i = 0; i < n; ++i) bits |= nf::packed_norm<T>(v[i]) << (8 * sizeof(T) * i);               \
    return bits;                                                                                       \
  }                                                                                                    \
  NF_FN std::uint32_t pack_half_to_##suffix(vec<half, n> v) {                                          \
    return pack_float_to_##suffix(vec<float, n>(v));                                                   \
  }                                                                                                    \
  NF_FN vec<float, n> unpack_##suffix##_to_float(std::uint32_t bits) {                                 \
    vec<float, n> v;                                                                                   \
    for (int i = 0; i < n; ++i) v[i] = nf::unpacked_norm<T>(bits >> (8 * sizeof(T) * i));              \
    return v;                                                                                          \
  }                                                                                                    \
  NF_FN vec<half, n> unpack_##suffix##_to_half(std::uint32_t bits) {                                   \
    return vec<half, n>(unpack_##suffix##_to_float(bits));                                             \
  }
NF_PACK(unorm4x8, 4, std::uint8_t)
NF_PACK(snorm4x8, 4, std::int8_t)
NF_PACK(unorm2x16, 2, std::uint16_t)
NF_PACK(snorm2x16, 2, std::int16_t)
#undef NF_PACK

}  // namespace metal

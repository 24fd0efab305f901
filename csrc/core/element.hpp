// One element: its bit pattern, its conversion to float32 and its bin.
#pragma once

#include <cstdint>
#include <cstring>

#include "portable.hpp"

GRADTAIL_CORE_BEGIN

enum DType : std::int32_t { kFloat64 = 0, kFloat32 = 1, kFloat16 = 2, kBfloat16 = 3 };

GRADTAIL_HD int itemsize_of(std::int32_t dtype) { return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2; }

// Most mantissa bits that a float32 made from this dtype can use.
GRADTAIL_HD int mantissa_of(std::int32_t dtype) { return dtype == kBfloat16 ? 7 : dtype == kFloat16 ? 10 : 23; }

constexpr std::uint32_t kMagnitudeMask = 0x7fffffffu;
constexpr std::uint32_t kInfinityBits = 0x7f800000u;

GRADTAIL_HD std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

GRADTAIL_HD float float_of(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

GRADTAIL_HD bool is_finite(float x) { return (bits_of(x) & kMagnitudeMask) < kInfinityBits; }

GRADTAIL_HD float widen_bfloat16(std::uint16_t raw) { return float_of(static_cast<std::uint32_t>(raw) << 16); }

// Subnormals go through an integer conversion, so the result does not depend on the
// denormals-are-zero mode that a framework may have set on this thread.
GRADTAIL_HD float widen_float16(std::uint16_t raw) {
  const std::uint32_t sign = static_cast<std::uint32_t>(raw & 0x8000u) << 16;
  const std::uint32_t exponent = raw & 0x7c00u, mantissa = raw & 0x03ffu;
  if (exponent == 0) return float_of(bits_of(static_cast<float>(mantissa) * 0x1p-24f) | sign);
  if (exponent == 0x7c00u) return float_of(sign | kInfinityBits | (mantissa << 13));
  return float_of(sign | (((exponent | mantissa) << 13) + (112u << 23)));
}

// The top 9 + bits bits of the float32 pattern: sign, exponent, `bits` of mantissa.
GRADTAIL_HD std::uint32_t bin_of(std::uint32_t pattern, int bits) { return pattern >> (23 - bits); }

GRADTAIL_CORE_END

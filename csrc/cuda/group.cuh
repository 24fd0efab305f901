// Eight neighbours of a buffer in the registers of one thread.
#pragma once

#include "../core/element.hpp"
#include "../core/projection.hpp"
#include "../core/view.hpp"
#include "device.hpp"

#if defined(__CUDACC__)
#define GRADTAIL_UNROLL _Pragma("unroll")
#define GRADTAIL_CONSTANT const __grid_constant__
#else
#define GRADTAIL_UNROLL
#define GRADTAIL_CONSTANT const
#endif

namespace gradtail::cuda {

struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

GRADTAIL_DEVICE float half_value(std::uint32_t raw) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<std::uint16_t>(raw)));
  return x;
#else
  return widen_float16(static_cast<std::uint16_t>(raw));
#endif
}

GRADTAIL_DEVICE float value_of(float x) { return x; }
GRADTAIL_DEVICE float value_of(Half x) { return half_value(x.bits); }
GRADTAIL_DEVICE float value_of(Bfloat x) { return widen_bfloat16(x.bits); }
GRADTAIL_DEVICE double value_of(double x) { return x; }

// Sixteen bytes that are read once: they need not stay in the first cache.
GRADTAIL_DEVICE uint4 load_once(const void* p) {
#if defined(__CUDA_ARCH__)
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
#else
  return *static_cast<const uint4*>(p);
#endif
}

// The words of a group; `aligned` says that it begins at a multiple of 16 bytes.
template <typename Raw>
struct Group {  // of 16-bit values, two a word
  uint4 w;

  GRADTAIL_DEVICE void load(const Raw* p, bool aligned) {
    if (aligned) {
      w = load_once(p);
      return;
    }
    const auto* const half = reinterpret_cast<const std::uint16_t*>(p);
    const auto pair = [half](int i) { return half[2 * i] | static_cast<std::uint32_t>(half[2 * i + 1]) << 16; };
    w = make_uint4(pair(0), pair(1), pair(2), pair(3));
  }
  GRADTAIL_DEVICE float value(int l) const {
    const std::uint32_t word = l < 2 ? w.x : l < 4 ? w.y : l < 6 ? w.z : w.w;
    return half_of(word, l & 1, Raw{});
  }

 private:
  GRADTAIL_DEVICE static float half_of(std::uint32_t word, int upper, Bfloat) {
    return float_of(upper ? word & 0xffff0000u : word << 16);
  }
  GRADTAIL_DEVICE static float half_of(std::uint32_t word, int upper, Half) {
    return half_value(upper ? word >> 16 : word & 0xffffu);
  }
};

template <>
struct Group<float> {
  uint4 low, high;

  GRADTAIL_DEVICE void load(const float* p, bool aligned) {
    if (aligned) {
      low = load_once(p);
      high = load_once(p + 4);
      return;
    }
    low = make_uint4(bits_of(p[0]), bits_of(p[1]), bits_of(p[2]), bits_of(p[3]));
    high = make_uint4(bits_of(p[4]), bits_of(p[5]), bits_of(p[6]), bits_of(p[7]));
  }
  GRADTAIL_DEVICE float value(int l) const {
    const uint4& w = l < 4 ? low : high;
    const int i = l & 3;
    return float_of(i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w);
  }
};

// A value of a view by itself.
GRADTAIL_DEVICE double value_at(const BufferView& view, std::int64_t offset) {
  const std::uint64_t at = view.data + static_cast<std::uint64_t>(offset) * itemsize_of(view.dtype);
  if (view.dtype == kFloat64) return *reinterpret_cast<const double*>(at);
  if (view.dtype == kFloat32) return static_cast<double>(*reinterpret_cast<const float*>(at));
  if (view.dtype == kFloat16) return static_cast<double>(value_of(*reinterpret_cast<const Half*>(at)));
  return static_cast<double>(value_of(*reinterpret_cast<const Bfloat*>(at)));
}

}  // namespace gradtail::cuda

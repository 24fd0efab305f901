// Eight neighbours of a buffer in the registers of one thread.
#pragma once

#include "../core/element.hpp"
#include "../core/projection.hpp"
#include "../core/view.hpp"
#include "device.hpp"

#if defined(__CUDACC__)
#define GRADTAIL_UNROLL _Pragma("unroll")
#define GRADTAIL_ROLLED _Pragma("unroll 1")
#define GRADTAIL_CONSTANT const __grid_constant__
#else
#define GRADTAIL_UNROLL
#define GRADTAIL_ROLLED
#define GRADTAIL_CONSTANT const
#endif

namespace gradtail::cuda {

struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

// threadIdx.x, asked for where it is used: what follows from it is then not kept in registers.
GRADTAIL_DEVICE int asked_lane() {
#if defined(__CUDA_ARCH__)
  int lane;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(lane));
  return lane;
#else
  return static_cast<int>(threadIdx.x);
#endif
}

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

// The lower bits of `word` after a turn to the right by n, of which the last five bits matter.
GRADTAIL_DEVICE std::uint32_t turned_right(std::uint32_t word, int n) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(word, word, static_cast<unsigned>(n));
#else
  return word >> (n & 31) | word << (-n & 31);
#endif
}

// The larger of a magnitude and |x|, or NaN if one of them is.
GRADTAIL_DEVICE float larger_or_nan(float magnitude, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float most;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(magnitude), "f"(fabsf(x)));
  return most;
#else
  return magnitude >= fabsf(x) || magnitude != magnitude ? magnitude : fabsf(x);
#endif
}

constexpr std::uint32_t kBothMagnitudes = 0x7fff7fffu;  // of two 16-bit values in a word

// Groups of 16-bit values that a thread asks for before it uses the first: as many as the registers of each
// architecture take without a spill, which benchmarks/gpu/sass.py checks. A window of bins takes registers too.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kHalvesAhead = 2, kHalvesAheadOfWindow = 2;
#elif defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890)
constexpr int kHalvesAhead = 4, kHalvesAheadOfWindow = 4;
#else
constexpr int kHalvesAhead = 4, kHalvesAheadOfWindow = 2;
#endif

// The words of a group that begins at a multiple of 16 bytes.
template <typename Raw>
struct Group {  // of 16-bit values, two a word
  static constexpr int kWords = 4;
  uint4 w;

  GRADTAIL_DEVICE void load(const Raw* p) { w = load_once(p); }
  GRADTAIL_DEVICE std::uint32_t word(int i) const { return i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w; }
  GRADTAIL_DEVICE float value(int l) const { return half_of(word(l / 2), l & 1, Raw{}); }

  GRADTAIL_DEVICE std::uint32_t zeros() const {
    std::uint32_t others = 0;
    GRADTAIL_UNROLL
    for (int i = 0; i < kWords; ++i)
      others += static_cast<std::uint32_t>(__popc(((word(i) & kBothMagnitudes) + kBothMagnitudes) & ~kBothMagnitudes));
    return kGroup - others;
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
  static constexpr int kWords = 8;
  uint4 low, high;

  GRADTAIL_DEVICE void load(const float* p) {
    low = load_once(p);
    high = load_once(p + 4);
  }
  GRADTAIL_DEVICE std::uint32_t word(int i) const {
    const uint4& w = i < 4 ? low : high;
    return (i & 3) == 0 ? w.x : (i & 3) == 1 ? w.y : (i & 3) == 2 ? w.z : w.w;
  }
  GRADTAIL_DEVICE float value(int l) const { return float_of(word(l)); }
  GRADTAIL_DEVICE std::uint32_t zeros() const {
    std::uint32_t found = 0;
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) found += value(l) == 0;
    return found;
  }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define GRADTAIL_EXTREMES(name, operation, Raw)                                           \
  GRADTAIL_DEVICE std::uint32_t name(std::uint32_t magnitudes, std::uint32_t word, Raw) { \
    std::uint32_t result;                                                                 \
    asm("{.reg .b32 m; " operation : "=r"(result) : "r"(magnitudes), "r"(word));          \
    return result;                                                                        \
  }
GRADTAIL_EXTREMES(larger_halves, "abs.bf16x2 m, %2; max.NaN.bf16x2 %0, %1, m;}", Bfloat)
GRADTAIL_EXTREMES(larger_halves, "abs.f16x2 m, %2; max.NaN.f16x2 %0, %1, m;}", Half)
GRADTAIL_EXTREMES(smaller_halves, "abs.bf16x2 m, %2; min.bf16x2 %0, %1, m;}", Bfloat)
GRADTAIL_EXTREMES(smaller_halves, "abs.f16x2 m, %2; min.f16x2 %0, %1, m;}", Half)
#undef GRADTAIL_EXTREMES

// Of the lower and of the upper halves of words at a time; a NaN is the largest.
template <typename Raw>
struct HalfExtremes {
  std::uint32_t most, least;

  GRADTAIL_DEVICE explicit HalfExtremes(std::uint32_t word) : most(word & kBothMagnitudes), least(most) {}
  GRADTAIL_DEVICE void add(std::uint32_t word) {
    most = larger_halves(most, word, Raw{});
    least = smaller_halves(least, word, Raw{});
  }
  GRADTAIL_DEVICE std::uint32_t most_of_low() const { return most & 0xffffu; }
  GRADTAIL_DEVICE std::uint32_t least_of_low() const { return least & 0xffffu; }
};
#else
// Patterns compare like magnitudes, that of a NaN being the largest. Of two words the larger one has the larger upper
// half, whatever the lower halves are.
template <typename Raw>
struct HalfExtremes {
  std::uint32_t most, least, low_most, low_least;

  GRADTAIL_DEVICE explicit HalfExtremes(std::uint32_t word)
      : most(word & kBothMagnitudes), least(most), low_most(word & 0x7fffu), low_least(low_most) {}
  GRADTAIL_DEVICE void add(std::uint32_t word) {
    const std::uint32_t both = word & kBothMagnitudes, low = word & 0x7fffu;
    most = both > most ? both : most;
    least = both < least ? both : least;
    low_most = low > low_most ? low : low_most;
    low_least = low < low_least ? low : low_least;
  }
  GRADTAIL_DEVICE std::uint32_t most_of_low() const { return low_most; }
  GRADTAIL_DEVICE std::uint32_t least_of_low() const { return low_least; }
};
#endif

// The largest and the smallest magnitude of groups, as patterns of float32. A NaN is the largest.
template <typename Raw>
struct Extremes {
  HalfExtremes<Raw> of;

  GRADTAIL_DEVICE explicit Extremes(const Group<Raw>& first) : of(first.word(0)) {}
  GRADTAIL_DEVICE void add(std::uint32_t word) { of.add(word); }
  GRADTAIL_DEVICE std::uint32_t largest() const {
    const std::uint32_t low = of.most_of_low(), high = of.most >> 16;
    return pattern(low > high ? low : high, Raw{});
  }
  GRADTAIL_DEVICE std::uint32_t smallest() const {
    const std::uint32_t low = of.least_of_low(), high = of.least >> 16;
    return pattern(low < high ? low : high, Raw{});
  }

 private:
  GRADTAIL_DEVICE static std::uint32_t pattern(std::uint32_t half, Bfloat) { return half << 16; }
  GRADTAIL_DEVICE static std::uint32_t pattern(std::uint32_t half, Half) { return bits_of(half_value(half)); }
};

template <>
struct Extremes<float> {
  float most, least;

  GRADTAIL_DEVICE explicit Extremes(const Group<float>& first)
      : most(fabsf(first.value(0))), least(fabsf(first.value(0))) {}
  GRADTAIL_DEVICE void add(std::uint32_t word) {
    most = larger_or_nan(most, float_of(word));
    least = fminf(least, fabsf(float_of(word)));
  }
  GRADTAIL_DEVICE std::uint32_t largest() const { return bits_of(most) & kMagnitudeMask; }
  GRADTAIL_DEVICE std::uint32_t smallest() const { return bits_of(least); }
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

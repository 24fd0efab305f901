// Power sums of the values that one thread takes: short sums in float32, long ones in double, both of x / 2^e with an
// exponent of the thread's own, so that neither 1e-30 nor 1e+30 leaves the range of a fourth power.
#pragma once

#include <cfloat>

#include "../core/element.hpp"
#include "../core/moments.hpp"
#include "device.hpp"
#include "group.cuh"
#include "tensor_sums.cuh"

namespace gradtail::cuda {

// 2^e for e from -126 to 127.
GRADTAIL_DEVICE float float_power_of_two(int e) { return float_of(static_cast<std::uint32_t>(127 + e) << 23); }

// e with 2^(e-1) <= x < 2^e for float x > 0, at least -126; one too large at most for subnormals.
GRADTAIL_DEVICE int float_exponent(float x) {
  const int field = static_cast<int>(bits_of(x) >> 23);
  return field < 1 ? -126 : field - 126;
}

// Doublings that a value may exceed the scale by, before a new one is taken. Values that are neither very large nor
// very small have the scale 1, of which 64 fourth powers are far from the limits of float32.
constexpr int kHeadroom = 20, kUnscaledHeadroom = 28, kUnscaledLow = -24;

// The long sums of all threads of a team, in shared memory: registers are scarce, and these are seldom touched.
template <int kLanes>
struct Totals {
  double sum[4][kLanes];
  std::uint32_t zeros[kLanes];
};

// Of float32, float16 and bfloat16. The exponent is kept as 2^-exponent; 0 stands for the smallest, -126.
template <int kLanes>
struct NarrowSums {
  float part[4] = {};  // of up to 8 groups
  float inverse = 0;
  float max_abs = 0;

  GRADTAIL_DEVICE int exponent() const { return inverse == 0 ? -126 : 127 - static_cast<int>(bits_of(inverse) >> 23); }

  // The largest magnitude that goes with the exponent.
  GRADTAIL_DEVICE float limit() const {
    if (inverse == 0) return 0;
    const int most = exponent() + (exponent() == 0 ? kUnscaledHeadroom : kHeadroom);
    return most > 127 ? FLT_MAX : float_power_of_two(most);
  }
  GRADTAIL_DEVICE bool fits(float magnitude) const { return magnitude <= limit(); }

  // Take a scale that goes with a finite magnitude beyond the limit; not kFirst: not that of 1.
  template <bool kFirst = true>
  GRADTAIL_DEVICE void rescale(Totals<kLanes>& totals, float magnitude) {
    move(totals);
    const int before = exponent(), fitting = float_exponent(magnitude);
    const bool unscaled = kFirst && fitting >= kUnscaledLow && fitting <= kUnscaledHeadroom;
    const int now = unscaled ? 0 : fitting > 126 ? 126 : !kFirst && fitting == 0 ? 1 : fitting;
    for (int p = 1; p <= 4; ++p) totals.sum[p - 1][threadIdx.x] *= power_of_two(p * (before - now));
    inverse = float_power_of_two(-now);
  }

  // A group, in units of the scale. Sums of 8, then of 8 such: 16 roundings at most, which keep within 1e-6.
  // kFrom: the lowest power, 1 or 2.
  template <int kFrom = 1>
  GRADTAIL_DEVICE void add(const float (&y)[8]) {
    float first = y[0], second = y[0] * y[0], third = second * y[0], fourth = second * second;
    GRADTAIL_UNROLL
    for (int l = 1; l < 8; ++l) {
      const float q = y[l] * y[l];
      first += y[l];
      second += q;
      third = fmaf(q, y[l], third);
      fourth = fmaf(q, q, fourth);
    }
    if constexpr (kFrom == 1) part[0] += first;
    part[1] += second;
    part[2] += third;
    part[3] += fourth;
  }

  // A group with values beyond the scale of 1, which stays: then it is the scale of all lanes of a warp or of none.
  GRADTAIL_DEVICE void add_beyond(Totals<kLanes>& totals, const float (&x)[8]) {
    for (int l = 0; l < 8; ++l) {
      const double y = static_cast<double>(x[l]);
      double power = 1;
      for (int p = 0; p < 4; ++p) totals.sum[p][threadIdx.x] += power *= y;
    }
  }

  // Move the short sums to the long ones, after 8 groups at most.
  GRADTAIL_DEVICE void move(Totals<kLanes>& totals) {
    GRADTAIL_UNROLL
    for (int p = 0; p < 4; ++p) {
      totals.sum[p][threadIdx.x] += static_cast<double>(part[p]);
      part[p] = 0;
    }
  }
};

// Of any dtype, float64 among them: everything in double.
template <int kLanes>
struct WideSums {
  double part[4] = {};
  double limit = 0;
  double max_abs = 0;
  int scale = -1022;

  GRADTAIL_DEVICE int exponent() const { return scale; }

  GRADTAIL_DEVICE bool fits(double magnitude) const { return magnitude <= limit; }

  GRADTAIL_DEVICE void rescale(Totals<kLanes>& totals, double magnitude) {
    move(totals);
    const int now = exponent_of(magnitude);
    for (int p = 1; p <= 4; ++p) totals.sum[p - 1][threadIdx.x] *= power_of_two(p * (scale - now));
    scale = now;
    limit = ldexp(1.0, now + kHeadroom > 1023 ? 1023 : now + kHeadroom);
    if (now + kHeadroom > 1023) limit = DBL_MAX;
  }

  GRADTAIL_DEVICE void add(const double (&x)[8]) {
    for (int l = 0; l < 8; ++l) {
      const double y = ldexp(x[l], -scale), q = y * y;
      part[0] += y;
      part[1] += q;
      part[2] += q * y;
      part[3] += q * q;
    }
  }

  GRADTAIL_DEVICE void move(Totals<kLanes>& totals) {
    for (int p = 0; p < 4; ++p) {
      totals.sum[p][threadIdx.x] += part[p];
      part[p] = 0;
    }
  }
};

}  // namespace gradtail::cuda

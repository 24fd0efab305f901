// Power sums that neither overflow nor underflow: they are kept of x / 2^e, with 2^e just above max |x|.
// Powers of two scale without rounding, so scaling the data changes no bit of skewness or kurtosis.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "portable.hpp"
#include "record.hpp"

GRADTAIL_CORE_BEGIN

GRADTAIL_HD Record empty_record() {
  Record r{};
  r.first_nonfinite = kNoIndex;
  r.low_bin = kNoBin;
  r.high_bin = -1;
  return r;
}

// e with 2^(e-1) <= x < 2^e for finite x > 0, and 0 for 0: the exponent of frexp.
GRADTAIL_HD int exponent_of(double x) {
  int e = 0;
  frexp(x, &e);
  return e;
}

// 2^e for the normal range; 0 below it, where the product would vanish against a sum of order one.
GRADTAIL_HD double power_of_two(int e) {
  if (e < -1022) return 0.0;
  const std::uint64_t bits = static_cast<std::uint64_t>(1023 + (e > 1023 ? 1023 : e)) << 52;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Turn sums of (y - c)^p, p = 1..4, over n values into sums of y^p.
GRADTAIL_HD void shift_to_origin(double s[4], double n, double c) {
  const double c2 = c * c;
  s[3] += c * (4 * s[2] + c * (6 * s[1] + c * (4 * s[0] + n * c)));
  s[2] += c * (3 * s[1] + c * (3 * s[0] + n * c));
  s[1] += 2 * c * s[0] + n * c2;
  s[0] += n * c;
}

// Add sums of (x / 2^e)^p over values whose largest magnitude is max_abs.
GRADTAIL_HD void add_power_sums(Record& r, const double s[4], int e, double max_abs) {
  const int old = exponent_of(r.max_abs);
  if (max_abs > r.max_abs) r.max_abs = max_abs;
  const int now = exponent_of(r.max_abs);
  for (int p = 1; p <= 4; ++p)
    r.sum[p - 1] = r.sum[p - 1] * power_of_two(p * (old - now)) + s[p - 1] * power_of_two(p * (e - now));
}

// Join two disjoint sets of values.
GRADTAIL_HD void merge(Record& into, const Record& from) {
  add_power_sums(into, from.sum, exponent_of(from.max_abs), from.max_abs);
  into.count += from.count;
  into.zeros += from.zeros;
  into.nan += from.nan;
  into.posinf += from.posinf;
  into.neginf += from.neginf;
  into.overflowed += from.overflowed;
  into.vanished += from.vanished;
  if (from.first_nonfinite < into.first_nonfinite) into.first_nonfinite = from.first_nonfinite;
  if (from.mantissa > into.mantissa) into.mantissa = from.mantissa;
  if (from.low_bin < into.low_bin) into.low_bin = from.low_bin;
  if (from.high_bin > into.high_bin) into.high_bin = from.high_bin;
}

GRADTAIL_CORE_END

// One summary without its bin counts. python/gradtail/states/table.py describes the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradtail {

constexpr std::int64_t kNoIndex = INT64_MAX;  // neutral elements of min
constexpr std::int64_t kNoBin = INT64_MAX;

struct Record {
  std::int64_t count;  // finite values
  std::int64_t zeros;  // exact zeros, of either sign
  std::int64_t nan;
  std::int64_t posinf;
  std::int64_t neginf;
  std::int64_t first_nonfinite;  // element index, kNoIndex if none
  std::int64_t overflowed;       // finite float64 beyond the float32 range: not in the bins
  std::int64_t vanished;         // nonzero float64 that rounds to a float32 zero: not in the bins
  std::int64_t mantissa;         // most mantissa bits of any input: 7, 10 or 23; 0 if no input
  std::int64_t low_bin;          // bins of nonzero magnitudes lie in [low_bin, high_bin], sign removed;
  std::int64_t high_bin;         // bin 0, which also holds the zeros, may be in use besides
  double max_abs;                // largest finite |x|
  double sum[4];                 // sum of (x / 2^e)^p, p = 1..4, where 2^(e-1) <= max_abs < 2^e
};

static_assert(sizeof(Record) == 128, "the NumPy dtype RECORD has 128 bytes");
static_assert(offsetof(Record, max_abs) == 88, "the NumPy dtype RECORD has max_abs at byte 88");

}  // namespace gradtail

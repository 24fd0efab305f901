// Sums of blocks of neighbours, and what is kept of their logarithms: all that the stable index is estimated from.
// python/gradtail/states/log_sums.py is the specification.
//
// The sum of a block is that of its halves, in float32 down to single values: so its bits do not depend on who adds
// it up. Its logarithm is a whole number of 2^-16 octaves, by integers alone: sums of such numbers have no order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "element.hpp"
#include "portable.hpp"

namespace gradtail {

constexpr int kBlockSizes = 4;  // blocks of 64, 256, 1024 and 4096 values
constexpr int kLeastBlock = 64;
constexpr int kMostBlock = 4096;
constexpr int kBlocksAPiece = kMostBlock / kLeastBlock;

// Of the blocks of one size in one row of a table. python/gradtail/states/log_sums.py describes the same bytes.
struct LogSums {
  std::int64_t blocks;      // whole blocks with a finite sum
  std::int64_t zeros;       // of them, those whose sum is zero
  std::int64_t nonfinite;   // whole blocks with a value that is not finite as float32
  std::int64_t overflowed;  // other whole blocks, whose sum is not finite
  double sum;               // of log2 |Y| over the sums Y that are not zero, in units of 2^-16
  double squares;           // of their squares, in units of 2^-8, of log2 |Y| rounded to 2^-4
};
static_assert(sizeof(LogSums) == 48, "the NumPy dtype LOG_SUMS has 48 bytes");
static_assert(offsetof(LogSums, sum) == 32, "the NumPy dtype LOG_SUMS has sum at byte 32");

// The same of one tile, in integers.
struct LogTally {
  std::int64_t blocks, zeros, nonfinite, overflowed, sum, squares;
};

}  // namespace gradtail

GRADTAIL_CORE_BEGIN

// log2(1 + (i + t) / 16) is c0[i] + t * (c1[i] + t * c2[i]) in units of 2^-18, within 1.5e-5 of an octave.
struct LogTable {
  std::int32_t c0[16], c1[16], c2[16];
};
#define GRADTAIL_LOG_TABLE                                                                                           \
  {{0, 22928, 44545, 64993, 84392, 102844, 120437, 137249, 153344, 168783, 183616, 197889, 211643, 224915, 237736,   \
    250137},                                                                                                         \
   {23623, 22235, 21001, 19896, 18902, 18003, 17185, 16438, 15754, 15124, 14542, 14004, 13504, 13039, 12604, 12198}, \
   {-695, -618, -553, -497, -450, -409, -374, -342, -315, -291, -269, -250, -233, -217, -203, -191}}

constexpr int kLogFraction = 16;     // log2 is in units of 2^-16,
constexpr int kSquaredFraction = 4;  // and of 2^-4 where it is squared: 1024 squares have a sum below 2^32
constexpr std::uint32_t kSmallestNormal = 0x00800000u;

// log2 of a normal positive float32, from its pattern.
GRADTAIL_HD std::int32_t log2_of_normal(std::uint32_t pattern, const LogTable& table) {
  const int i = static_cast<int>(pattern >> 19) & 15;
  const auto t = static_cast<std::int32_t>(pattern >> 4 & 0x7fff);
  const std::int32_t slope = table.c1[i] + ((table.c2[i] * t) >> 15);
  const std::int32_t part = (table.c0[i] + ((slope * t + (1 << 14)) >> 15) + 2) >> 2;
  return (static_cast<std::int32_t>(pattern >> 23) - 127) * (1 << kLogFraction) + part;
}

// The same of any positive finite float32.
GRADTAIL_HD std::int32_t log2_of(std::uint32_t pattern, const LogTable& table) {
  if (pattern >= kSmallestNormal) return log2_of_normal(pattern, table);
  return log2_of_normal(bits_of(static_cast<float>(pattern)), table) - 149 * (1 << kLogFraction);
}

GRADTAIL_HD std::int32_t rounded_for_square(std::int32_t log2) {
  constexpr int shift = kLogFraction - kSquaredFraction;
  return (log2 + (1 << (shift - 1))) >> shift;
}

// Take in the sum of a block of finite values, or of others.
GRADTAIL_HD void add_block(LogTally& tally, float sum, bool nonfinite, const LogTable& table) {
  const std::uint32_t pattern = bits_of(sum) & kMagnitudeMask;
  if (nonfinite || pattern >= kInfinityBits) {
    ++(nonfinite ? tally.nonfinite : tally.overflowed);
    return;
  }
  ++tally.blocks;
  if (pattern == 0) {
    ++tally.zeros;
    return;
  }
  const std::int32_t log2 = log2_of(pattern, table);
  const std::int64_t rounded = rounded_for_square(log2);
  tally.sum += log2;
  tally.squares += rounded * rounded;
}

// Whole numbers in double: exact, in any order, below 2^53.
GRADTAIL_HD void add_logs(LogSums& into, const LogTally& from) {
  into.blocks += from.blocks;
  into.zeros += from.zeros;
  into.nonfinite += from.nonfinite;
  into.overflowed += from.overflowed;
  into.sum += static_cast<double>(from.sum);
  into.squares += static_cast<double>(from.squares);
}

GRADTAIL_HD void add_logs(LogSums& into, const LogSums& from) {
  into.blocks += from.blocks;
  into.zeros += from.zeros;
  into.nonfinite += from.nonfinite;
  into.overflowed += from.overflowed;
  into.sum += from.sum;
  into.squares += from.squares;
}

GRADTAIL_CORE_END

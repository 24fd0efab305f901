// Streaming moments of single coordinates over steps, and the choice of those that are followed.
// python/gradtail/states/coordinates.py is the specification.
#pragma once

#include <cstdint>

#include "hash.hpp"
#include "portable.hpp"

GRADTAIL_CORE_BEGIN

// The group (index / 8 in the whole parameter) that is followed in a cell. In the last, short cell the choice
// is among the groups that exist.
GRADTAIL_HD std::int64_t chosen_group(std::uint64_t key, std::int64_t id, std::int64_t cell, std::int64_t elements) {
  if (cell == 1) return id;
  const std::int64_t groups = (elements + 7) / 8, left = groups - id * cell;
  const std::uint64_t hash = hash64(key, kCellStream, static_cast<std::uint64_t>(id));
  // a full cell is a power of two: no division
  return id * cell + static_cast<std::int64_t>(left < cell ? hash % static_cast<std::uint64_t>(left)
                                                           : hash & static_cast<std::uint64_t>(cell - 1));
}

// Of x / 2^exponent: beyond it, a few fourth powers would overflow. A group with such a value is left out of the
// step, as one with a value that is not finite; the scale is then chosen anew.
constexpr float kMostScaled = 0x1p30f;

// What the update takes from the number of values n, the new one included.
struct CountFactors {
  float inverse, less_one, less_two, square;  // 1 / n, n - 1, n - 2, n^2 - 3n + 3
};

GRADTAIL_HD CountFactors count_factors(std::uint32_t count) {
  const double n = count;
  return {static_cast<float>(1 / n), static_cast<float>(n - 1), static_cast<float>(n - 2),
          static_cast<float>(n * n - 3 * n + 3)};
}

// Take one value into the mean and the central sums: Pebay 2008, SAND2008-6212, eq. 3.1.
GRADTAIL_HD void add_value(float x, const CountFactors& n, float& mean, float& m2, float& m3, float& m4) {
  const float delta = x - mean, step = delta * n.inverse, term = delta * step * n.less_one, square = step * step;
  mean += step;
  m4 += term * square * n.square + 6 * square * m2 - 4 * step * m3;
  m3 += term * step * n.less_two - 3 * step * m2;
  m2 += term;
}

GRADTAIL_CORE_END

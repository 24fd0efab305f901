// The orders in which threads, and blocks, take their turns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fibers.hpp"

namespace gradtail::simulated {

constexpr int kWarpLanes = 32;
constexpr int kMostThreads = 1024;  // of a block

class Random {  // splitmix64
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
  }
  std::size_t below(std::size_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

// Writes 0 ... n - 1 in that order. Shuffled: in one half of all cases 32 neighbours stay together, so that one warp
// may be far ahead of another.
void choose_order(Order order, int n, Random& random, int* out);

}  // namespace gradtail::simulated

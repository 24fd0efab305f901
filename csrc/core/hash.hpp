// Counter-based hashes. python/gradtail/states/hashing.py is the specification.
#pragma once

#include <cstdint>

#include "portable.hpp"

GRADTAIL_CORE_BEGIN

// What a key is used for. Streams of different purpose share no counter.
constexpr std::uint64_t kShiftStream = 0x243f6a8885a308d3u;
constexpr std::uint64_t kLaneStream = 0x13198a2e03707344u;
constexpr std::uint64_t kCellStream = 0x082efa98ec4e6c89u;

GRADTAIL_HD std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

GRADTAIL_HD std::uint64_t hash64(std::uint64_t key, std::uint64_t stream, std::uint64_t counter) {
  return mix64(counter * 0x9e3779b97f4a7c15u + (key ^ stream));
}

GRADTAIL_HD std::uint32_t hash32(std::uint32_t low, std::uint32_t high, std::uint32_t counter) {
  std::uint32_t x = counter * 0x9e3779b1u + low;
  x = (x ^ (x >> 16)) * 0x7feb352du + high;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

GRADTAIL_CORE_END

// The map of the sketch, "rot8": bucket and sign of a coordinate. python/gradtail/states/projection.py is the
// specification. Groups of 8 neighbours stay together; a block of r elements is turned by whole groups, and
// each of its groups by the same number of lanes.
#pragma once

#include <cstdint>

#include "element.hpp"
#include "hash.hpp"
#include "portable.hpp"

GRADTAIL_CORE_BEGIN

constexpr int kGroup = 8;        // elements that stay together
constexpr int kSignsAWord = 32;  // elements that share a hashed word of signs

struct SketchBlock {
  std::uint32_t low, high;  // what the signs are made of
  int shift;                // groups
  int turn;                 // lanes
};

// Block j of r elements of a parameter.
GRADTAIL_HD SketchBlock sketch_block(std::uint64_t key, std::int64_t j, int r) {
  const std::uint64_t word = hash64(key, 0, static_cast<std::uint64_t>(j));
  const std::uint64_t lanes = hash64(key, kLaneStream, static_cast<std::uint64_t>(j / kGroup));
  SketchBlock b;
  b.low = static_cast<std::uint32_t>(word);
  b.high = static_cast<std::uint32_t>(word >> 32);
  b.shift = static_cast<int>(static_cast<std::uint32_t>(mix64(word ^ kShiftStream) >> 32) &
                             static_cast<std::uint32_t>(r / kGroup - 1));
  b.turn = static_cast<int>((static_cast<std::uint64_t>(j) + (lanes >> 61)) & (kGroup - 1));
  return b;
}

// Bit k is set where position 32 * q + k of the block has the sign -1.
GRADTAIL_HD std::uint32_t sign_word(const SketchBlock& b, std::uint32_t q) { return hash32(b.low, b.high, q); }

// Bucket of position p of the block.
GRADTAIL_HD int bucket_of(const SketchBlock& b, int p, int r) {
  return ((p / kGroup + b.shift) & (r / kGroup - 1)) * kGroup + ((p + b.turn) & (kGroup - 1));
}

// x or -x for the element of position p, whose word of signs this is.
GRADTAIL_HD float with_sign(float x, std::uint32_t word, int p) {
  return float_of(bits_of(x) ^ (word >> (p % kSignsAWord) << 31));
}
GRADTAIL_HD double with_sign(double x, std::uint32_t word, int p) { return word >> (p % kSignsAWord) & 1 ? -x : x; }

GRADTAIL_CORE_END

// The pass over one tile, once per instruction set, and the scratch memory of one thread.
#pragma once

#include <cstdint>

#include "../core/record.hpp"

namespace gradtail::cpu {

constexpr std::int64_t kTile = 1 << 16;  // elements that share one partial record
constexpr int kChunk = 4096;             // elements read twice or thrice while they lie in the L1/L2 cache

// Bin counters of one thread for one row. Two counters a bin: neighbours often fall into the same
// bin, and the second increment would have to wait for the first.
struct Counters {
  std::uint32_t* first;   // both of `bins` counters, zero between rows
  std::uint32_t* second;  // an odd number of cache lines behind `first`, lest their addresses alias
  int bits;
};

struct Tile {
  const void* data;
  std::int64_t size;   // at most kTile
  std::int64_t start;  // element index of the first value
  std::int32_t dtype;
};

using TileFunction = void (*)(const Tile&, Record&, Counters&);

namespace base {
void summarize_tile(const Tile&, Record&, Counters&);
}
namespace avx2 {
void summarize_tile(const Tile&, Record&, Counters&);
}
namespace avx512 {
void summarize_tile(const Tile&, Record&, Counters&);
}

}  // namespace gradtail::cpu

// The pass over one tile, once per instruction set, and what it writes to.
#pragma once

#include <cstdint>

#include "../core/log_sums.hpp"
#include "../core/record.hpp"
#include "../core/view.hpp"

#if defined(__GNUC__)
#define GRADTAIL_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define GRADTAIL_PREFETCH(address) static_cast<void>(address)
#endif

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

// The sketch of some tiles in float32, and the sums in double that it is moved to from time to time.
struct Sketch {
  static constexpr int kSpare = 4;  // groups behind the last, which stand for the first: no vector has to wrap
  static constexpr int kMostSpans = 8;

  float* tile = nullptr;    // buckets + 8 * kSpare; null: no sketch is wanted
  float* folded = nullptr;  // fold + 8 * kSpare, of the row alone; used where `direct`
  double* total = nullptr;  // buckets
  double* row = nullptr;    // fold, may be null
  int buckets = 0, log2_buckets = 0, fold = 0;
  // Whether values go to `folded` as well as to `tile`, which then need not be moved at the end of a row: cheaper
  // where rows are short. Else what is moved from `tile` is added to the row.
  bool direct = false;
  struct Span {
    int first, count;  // groups
  };
  Span spans[kMostSpans] = {};  // parts of `tile` in use; more than fit: all of it
  int used = 0;

  void touch(int first, int count) {
    if (used < kMostSpans) spans[used] = {first, count};
    ++used;
  }
};

// The elements [offset, offset + size) of a view.
struct Tile {
  const BufferView* view;
  std::int64_t offset;
  std::int64_t size;              // at most kTile
  const void* next;               // what will be read after it; may be null
  LogTally (*logs)[kBlockSizes];  // of the blocks that begin in it, added to; null: not wanted
};

// One instruction set.
struct Kernels {
  // Move counters to a row of the table, and zero them; magnitude bins in use lie in [low, high].
  void (*flush)(const Counters&, std::int64_t low, std::int64_t high, std::uint64_t* row);
  void (*summarize)(const Tile&, Record&, Counters&, Sketch&);
  void (*end_sketch)(Sketch&);                      // move `tile` to the sums
  void (*end_row)(Sketch&);                         // move `folded` to the row
  void (*update_piece)(const Tile&, const Piece&);  // groups whose first element lies in the tile
};

namespace base {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

}  // namespace gradtail::cpu

// What lies in the memory of the device, as host and kernels see it. Plain bytes.
//
// An update cuts its views into items and puts items into chains. A block of threads takes one chain after
// another from a queue. Every floating-point partial belongs to an item or to a chain, both of which follow from
// the sizes of the views alone, and partials are joined in their order: results do not depend on who did what, or
// when. Integers are joined by atomic operations, whose order does not matter.
#pragma once

#include <cstdint>

#include "../core/log_sums.hpp"
#include "../core/portable.hpp"
#include "../core/record.hpp"
#include "../core/view.hpp"

namespace gradtail::cuda {

constexpr int kLaneGroups = 8;       // elements that one thread takes at a time; core/projection.hpp has the reason
constexpr int kEntries = 256;        // blocks of the sketch whose hashes a team of threads prepares at a time
constexpr int kFold = 128;           // buckets of a row's own sketch, at most
constexpr int kFinishThreads = 256;  // of the second kernel
constexpr int kWindowBinades = 96;   // of the histogram that lies in shared memory where not all of it fits
constexpr float kSketchScale = 0x1p-16f;  // sketches are added up in float32 without overflow

// Part of a view: runs [first_run, last_run), or elements [begin, end) of run first_run where that is the only one.
// Of a sketch with more buckets than a team of threads keeps, one stripe.
struct Item {
  std::int64_t first_run, last_run;
  std::int64_t begin, end;  // within the run
  std::int32_t view, stripe;
};

// Power sums of an item, of x / 2^exponent.
struct ItemSums {
  double sum[4];
  double max_abs;
  std::int32_t exponent, unused;
};

// What an update found in a row, gathered by atomic operations. The second kernel takes it and makes it empty.
struct RowIntegers {
  unsigned long long zeros, nan, posinf, neginf, overflowed, vanished;
  long long first_nonfinite;
  int low_bin, high_bin;  // INT32_MAX, -1: none
};

// Likewise of a view.
struct ViewIntegers {
  long long first_nonfinite;
  unsigned long long max_abs;  // pattern of a double
};

// What follows from the sizes and dtypes of the views that a row has in an update.
struct RowPlan {
  std::int64_t elements;
  std::int32_t first_item, last_item;
  std::int32_t mantissa;
  std::int32_t present;  // whether the update has this row at all
};

// A coordinate that is followed: where its value lies; view -1: not in this update.
struct TrackPlan {
  std::int64_t offset;
  std::int32_t view, unused;
};

// CoordinateMoments of a view, as core/view.hpp has them, with the exponent where several plans find it.
struct DevicePiece {
  float* state;          // (cells, 4, 8): mean, M2, M3, M4 of x / 2^exponent; null: none
  std::uint32_t* count;  // (cells,)
  std::int32_t* exponent;
  std::int64_t cells_per_run;
  std::int64_t elements;    // of the whole parameter
  std::int64_t first_cell;  // of the pieces before it
  std::int32_t cell;        // groups of a cell, a power of two
  std::int32_t unused;
};
constexpr std::int32_t kUnscaled = INT32_MIN;  // exponent of a piece that has seen no value but zeros
constexpr int kGrowth = 20;                    // doublings beyond its scale after which a piece is scaled anew

// A step as the host is told of it, in memory that both can see. `sequence` is written last.
struct StepResult {
  std::int64_t step;
  double norm;                   // of all values of the step; NaN or infinite if any value is
  double finite_norm;            // of the finite ones
  std::int64_t nonfinite;        // values
  std::int64_t steps;            // begun so far, this one among them
  std::int64_t first_nonfinite;  // element index; kNoIndex: none
  std::int64_t first_view;       // that it lies in; -1: none
  std::int64_t sequence;         // updates so far, this one among them
};

// What changes from update to update. Kernels read it; the last block of the second one writes it.
struct Control {
  std::int64_t step;       // newest
  std::int64_t steps;      // begun so far
  std::int64_t calls;      // likewise, those that the cadence left out among them
  std::int64_t sequence;   // updates so far
  std::int32_t parity;     // of the tables of the newest step
  std::int32_t every;      // cadence of captured updates
  std::uint32_t queue;     // next chain
  std::uint32_t finished;  // blocks of the second kernel
  double norm;             // of the newest step, as in StepResult
  std::int32_t fresh;      // whether the open block begins with the newest step: the one before has been taken away
  std::int32_t unused;
};

// Which step an update belongs to.
struct StepArguments {
  std::int64_t step;     // -1: one more than the newest
  std::int32_t begin;    // whether this update is the first of its step
  std::int32_t fresh;    // whether the open block begins with the step before
  std::int32_t cadence;  // whether Control::every has a say
  std::int32_t unused;
};

// The memory of a stream on one device.
struct StateMemory {
  Control* control;
  StepResult* results;  // result_slots, mapped memory of the host
  std::int32_t result_slots;
  std::int32_t rows;
  std::int32_t bits;
  std::int32_t wide_counts;  // whether counters of one step have 64 bits, else 32
  void* newest_counts[2];    // rows * bins; of the newest step and, all zero, of the next
  Record* newest_records[2];
  std::int32_t* present[2];    // rows: whether the step has the row
  std::uint64_t* open_counts;  // of the steps of this block before the newest
  Record* open_records;
  LogTally* newest_logs[2];  // rows * kBlockSizes, as records; of open_logs as well
  LogTally* open_logs;
  std::int32_t stable;  // whether block sums are taken
  RowIntegers* row_integers;
  double* row_norms;  // log_slots * rows: inf: not finite; NaN: not observed
  std::int32_t log_slots;

  std::int32_t buckets, log2_buckets;  // of the map; buckets is a power of two also where no sketch is kept
  std::int32_t sketched;               // whether sketches are kept
  std::int32_t fold;                   // of rows; 0: none are kept
  double* sketch;                      // of the newest step
  double* row_sketches;                // rows * fold, of the newest step
  float* ring;                         // window * buckets, each divided by a power of two
  std::int32_t* ring_exponents;        // window
  float* row_ring;                     // row_window * rows * fold
  std::int32_t* row_ring_exponents;    // row_window * rows
  std::int32_t window, row_window;

  float* track_values;  // window * tracks
  std::uint8_t* track_observed;
  std::int32_t tracks, track_window;
};

// The tables of one set of views, and the partials of their update.
struct PlanMemory {
  const BufferView* views;
  const Item* items;
  const std::int32_t* chain_first;  // chains + 1
  const RowPlan* rows;
  const TrackPlan* tracks;
  const DevicePiece* pieces;
  const std::int64_t* first_block_piece;  // n_views + 1
  ViewIntegers* view_integers;
  ItemSums* item_sums;
  float* item_folds;    // items * kFold, times kSketchScale; of wide updates double
  float* chain_sketch;  // chains * (stripes * stripe width), times kSketchScale; of wide updates double, unscaled
  std::int64_t cells;   // of all pieces
  std::int32_t n_views, n_items, chains, stripes, stripe, unused;
};

// What both kernels are given.
struct PassArguments {
  StateMemory state;
  PlanMemory plan;
  StepArguments step;
};

// Pieces that a warp takes of a run for block sums, at most: some may be empty.
GRADTAIL_HD std::int64_t pieces_of_run(std::int64_t elements) { return (elements + 2 * kMostBlock - 2) / kMostBlock; }

// Which bins of a row lie in shared memory.
enum class BinMode { kAll, kWindow, kNone };

}  // namespace gradtail::cuda

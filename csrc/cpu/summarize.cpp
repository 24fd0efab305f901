// Cuts views into tiles, gives runs of tiles to threads, and joins what they made in tile order:
// the same sums in the same order whatever the number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "../core/element.hpp"
#include "../core/moments.hpp"
#include "../ops.hpp"
#include "pass.hpp"
#include "simd_level.hpp"
#include "subnormal.hpp"
#include "threads.hpp"

namespace gradtail::cpu {
namespace {

constexpr std::int64_t kAlone = 1 << 17;         // fewer elements than this are not worth waking a thread for
constexpr std::int64_t kFlushEvery = 1ll << 31;  // 32-bit counters are emptied before they can overflow
constexpr std::int64_t kLane = 1 << 18;          // elements that share the sums of a sketch, at least
constexpr std::int64_t kMoveEvery = kTile / 2;   // elements after which a sketch in float32 is added to sums in double
constexpr std::int64_t kDirect = 1 << 14;        // elements up to which an array goes to its row's sketch directly
constexpr int kMostLanes = 64;
constexpr std::int64_t kTileCost = 512;  // of a tile besides its elements, in elements

// Memory of one thread, kept between calls.
class Scratch {
 public:
  // By the caller, before the threads start: an exception in one of them would end the process.
  void reserve(int bits, int buckets, int fold) {
    const std::size_t size = 2 * bins(bits) + kGap;
    if (memory_.size() < size) memory_.assign(size, 0);
    const std::size_t floats = buckets == 0 ? 0 : buckets + fold + 2 * 8 * Sketch::kSpare + kLine;
    if (tile_.size() < floats) tile_.assign(floats, 0);
  }
  Counters counters(int bits) { return {memory_.data(), memory_.data() + bins(bits) + kGap, bits}; }
  float* tile() {  // at the start of a cache line
    const auto address = reinterpret_cast<std::uintptr_t>(tile_.data());
    return tile_.data() + (64 - address % 64) % 64 / sizeof(float);
  }
  float* folded(int buckets) { return tile() + buckets + 8 * Sketch::kSpare; }

 private:
  static constexpr std::size_t kGap = 16 * 3, kLine = 16;
  static std::size_t bins(int bits) { return std::size_t{2} << (8 + bits); }

  std::vector<std::uint32_t> memory_;
  std::vector<float> tile_;
};

// A run of tiles that one thread takes, and what it keeps aside until all are joined in order.
struct Lane {
  std::int64_t begin, end;  // tiles
  double* total;            // sketch
  double* first_row;        // of the first row and of the last: neighbours may have a part of them
  double* last_row;
};

struct Job {
  const BufferView* views;
  TableView table;
  Outputs out;
  const Kernels* kernels;
  bool in_order;                                        // rows do not decrease
  std::vector<std::int64_t> first_tile;                 // of each view; one more at the end
  std::vector<Record> partial;                          // one a tile
  std::vector<std::array<LogTally, kBlockSizes>> logs;  // one a tile, where they are wanted
  std::vector<Lane> lanes;
  std::vector<double> sums;  // that the lanes point to
  std::atomic<int> next_lane;
  std::mutex rows;  // rows of counts are shared by threads where their runs meet

  std::int64_t tiles() const { return first_tile.back(); }

  void cut(const BufferView* all, std::int64_t n) {
    views = all;
    kernels = &cpu::kernels();
    first_tile.resize(n + 1);
    first_tile[0] = 0;
    in_order = true;
    for (std::int64_t v = 0; v < n; ++v) {
      first_tile[v + 1] = first_tile[v] + (views[v].size + kTile - 1) / kTile;
      in_order = in_order && (v == 0 || views[v].row >= views[v - 1].row);
    }
    partial.resize(tiles());
    logs.assign(table.logs != nullptr ? tiles() : 0, {});
  }

  // `wanted` lanes of about the same number of elements.
  void make_lanes(int wanted, std::int64_t cost, std::int64_t n) {
    lanes.clear();
    std::int64_t t = 0, so_far = 0, begin = 0;
    for (std::int64_t v = 0; v < n; ++v) {
      for (std::int64_t left = views[v].size; left > 0; left -= kTile) {
        so_far += std::min(left, kTile) + kTileCost;
        ++t;
        if (so_far >= cost / wanted * (static_cast<std::int64_t>(lanes.size()) + 1) &&
            static_cast<int>(lanes.size()) + 1 < wanted) {
          lanes.push_back({begin, t, nullptr, nullptr, nullptr});
          begin = t;
        }
      }
    }
    if (begin < t) lanes.push_back({begin, t, nullptr, nullptr, nullptr});
    const std::size_t row = out.row_sketches != nullptr ? out.fold : 0, each = out.buckets + 2 * row;
    sums.assign(each * lanes.size(), 0.0);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      double* const own = sums.data() + i * each;
      lanes[i].total = own;
      lanes[i].first_row = own + out.buckets;
      lanes[i].last_row = own + out.buckets + row;
    }
  }

  Tile tile_of(std::int64_t v, std::int64_t t) {
    const std::int64_t offset = (t - first_tile[v]) * kTile, size = std::min(kTile, views[v].size - offset);
    const bool last = offset + size == views[v].size;
    const auto next = last && v + 2 < static_cast<std::int64_t>(first_tile.size()) ? views[v + 1].data : 0;
    auto* const own = logs.empty() ? nullptr : reinterpret_cast<LogTally(*)[kBlockSizes]>(logs[t].data());
    return {&views[v], offset, size, reinterpret_cast<const void*>(static_cast<std::uintptr_t>(next)), own};
  }

  std::int64_t view_of(std::int64_t t) const {
    return std::upper_bound(first_tile.begin(), first_tile.end(), t) - first_tile.begin() - 1;
  }

  // One lane, on one thread. `row_sum` is zero before and after.
  void run(const Lane& lane, Scratch& scratch, std::vector<double>& row_sum) {
    const SubnormalMode mode(SubnormalMode::kKeep);
    Counters counters = scratch.counters(table.bits);
    Sketch sketch;
    if (out.sketch != nullptr) {
      sketch.tile = scratch.tile();
      sketch.folded = scratch.folded(out.buckets);
      sketch.total = lane.total;
      sketch.buckets = out.buckets;
      while (1 << sketch.log2_buckets < out.buckets) ++sketch.log2_buckets;
      sketch.fold = out.fold;
      sketch.row = out.row_sketches != nullptr ? row_sum.data() : nullptr;
    }
    std::int64_t low = kNoBin, high = -1, waiting = 0, unmoved = 0;
    std::int64_t v = view_of(lane.begin);
    const std::int64_t last_view = view_of(lane.end - 1);
    bool first_row = true;
    for (std::int64_t t = lane.begin; t < lane.end; ++t) {
      while (first_tile[v + 1] <= t) ++v;
      const BufferView& view = views[v];
      const Tile tile = tile_of(v, t);
      const bool direct = sketch.row != nullptr && view.size <= kDirect;
      if (sketch.tile != nullptr && direct != sketch.direct) {
        kernels->end_sketch(sketch);
        kernels->end_row(sketch);
        sketch.direct = direct, unmoved = 0;
      }
      kernels->summarize(tile, partial[t], counters, sketch);
      if (out.track_first != nullptr) track(v, tile);
      if (out.pieces != nullptr) {
        kernels->update_piece(tile, out.pieces[v]);
        if (last_view > v) ask_for(out.pieces[v + 1]);
      }
      low = std::min(low, partial[t].low_bin);
      high = std::max(high, partial[t].high_bin);
      waiting += tile.size;
      const bool last = t + 1 == lane.end, row_ends = last || (first_tile[v + 1] == t + 1 && row_after(v) != view.row);
      if (row_ends || waiting >= kFlushEvery) {
        const std::lock_guard<std::mutex> lock(rows);
        kernels->flush(counters, low, high, table.counts + view.row * table.bins());
        low = kNoBin, high = -1, waiting = 0;
      }
      unmoved += tile.size;
      if (sketch.tile != nullptr && (last || (row_ends && !direct) || unmoved >= kMoveEvery)) {
        kernels->end_sketch(sketch);
        unmoved = 0;
      }
      if (row_ends && sketch.row != nullptr) {
        kernels->end_row(sketch);
        double* const to = first_row ? lane.first_row : last ? lane.last_row : out.row_sketches + view.row * out.fold;
        for (int b = 0; b < out.fold; ++b) {
          to[b] += row_sum[b];
          row_sum[b] = 0;
        }
        first_row = false;
      }
    }
  }

  // Row of the next view that has a tile; -1 at the end.
  std::int64_t row_after(std::int64_t v) const {
    const auto n = static_cast<std::int64_t>(first_tile.size()) - 1;
    for (++v; v < n; ++v)
      if (first_tile[v] != first_tile[v + 1]) return views[v].row;
    return -1;
  }

  void track(std::int64_t v, const Tile& tile) const {
    const std::int64_t* const end = out.track_offset + out.track_first[v + 1];
    const std::int64_t* at = std::lower_bound(out.track_offset + out.track_first[v], end, tile.offset);
    for (; at < end && *at < tile.offset + tile.size; ++at)
      out.track_value[at - out.track_offset] = value_at(views[v], *at);
  }

  // The memory of the next view's moments: where views are small, waiting for it would be most of the work.
  static void ask_for(const Piece& piece) {
    for (int line = 0; line < 2; ++line) GRADTAIL_PREFETCH(reinterpret_cast<const char*>(piece.state) + 64 * line);
    GRADTAIL_PREFETCH(reinterpret_cast<const char*>(piece.count));
  }

  static float value_at(const BufferView& view, std::int64_t offset) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(static_cast<std::uintptr_t>(view.data));
    bytes += offset * itemsize_of(view.dtype);
    if (view.dtype == kFloat64) return static_cast<float>(*reinterpret_cast<const double*>(bytes));
    if (view.dtype == kFloat32) return *reinterpret_cast<const float*>(bytes);
    const std::uint16_t raw = *reinterpret_cast<const std::uint16_t*>(bytes);
    return view.dtype == kFloat16 ? widen_float16(raw) : widen_bfloat16(raw);
  }

  void add_tallies(std::int64_t first, std::int64_t count, LogSums* to) const {
    for (std::int64_t i = first; i < first + count; ++i)
      for (int k = 0; k < kBlockSizes; ++k) add_logs(to[k], logs[i][k]);
  }

  void join(std::int64_t n) {
    const SubnormalMode mode(SubnormalMode::kKeep);
    for (std::int64_t v = 0; v < n; ++v) {
      Record own = empty_record();
      own.mantissa = mantissa_of(views[v].dtype);
      const std::int64_t first = first_tile[v], count = first_tile[v + 1] - first;
      if (count == 1) own = partial[first];
      for (std::int64_t i = 0; count > 1 && i < count; ++i) merge(own, partial[first + i]);
      if (out.records != nullptr) out.records[v] = own;
      merge(table.records[views[v].row], own);
      if (!logs.empty()) add_tallies(first, count, table.logs + views[v].row * kBlockSizes);
    }
    for (const Lane& lane : lanes) {
      if (out.sketch == nullptr) break;
      for (int b = 0; b < out.buckets; ++b) out.sketch[b] += lane.total[b];
      if (out.row_sketches == nullptr) continue;
      double* const first = out.row_sketches + views[view_of(lane.begin)].row * out.fold;
      for (int b = 0; b < out.fold; ++b) first[b] += lane.first_row[b];
      double* const last = out.row_sketches + views[view_of(lane.end - 1)].row * out.fold;
      for (int b = 0; b < out.fold; ++b) last[b] += lane.last_row[b];
    }
  }
};

struct Workspace {
  Job job;
  std::vector<Scratch> scratch;
  std::vector<std::vector<double>> row_sums;  // one a thread
};

// One workspace serves the usual case of one caller; a second caller at the same time makes its own. Never
// destroyed at exit: a daemon thread may still be in the pass.
std::mutex workspace_owner;
Workspace& shared_workspace = *new Workspace;

template <typename F>
void with_workspace(F f) {
  std::unique_lock<std::mutex> lock(workspace_owner, std::try_to_lock);
  if (lock)
    f(shared_workspace);
  else
    f(*std::make_unique<Workspace>());
}

void run(Workspace& workspace, const BufferView* views, std::int64_t n, TableView table, const Outputs& out) {
  Job& job = workspace.job;
  job.table = table;
  job.out = out;
  job.cut(views, n);
  std::int64_t elements = 0;
  for (std::int64_t v = 0; v < n; ++v) elements += views[v].size;
  const std::int64_t cost = elements + job.tiles() * kTileCost;
  int threads = cost < kAlone ? 1 : static_cast<int>(std::min<std::int64_t>(team_size(), job.tiles()));
  int lanes = threads;  // integers and records do not depend on them
  if (out.sketch != nullptr) {
    const std::int64_t least = std::max<std::int64_t>(kLane, 16 * out.buckets);
    lanes = job.in_order ? static_cast<int>(std::clamp<std::int64_t>(cost / least, 1, kMostLanes)) : 1;
    threads = std::min(threads, lanes);
  }
  job.make_lanes(std::max(lanes, 1), cost, n);
  if (static_cast<int>(workspace.scratch.size()) < threads) workspace.scratch.resize(threads);
  if (static_cast<int>(workspace.row_sums.size()) < threads) workspace.row_sums.resize(threads);
  for (int i = 0; i < threads; ++i) {
    workspace.scratch[i].reserve(table.bits, out.buckets, out.fold);
    workspace.row_sums[i].assign(out.fold, 0.0);
  }
  job.next_lane = 0;
  const auto share = [&](int i) {
    for (int lane = job.next_lane++; lane < static_cast<int>(job.lanes.size()); lane = job.next_lane++)
      job.run(job.lanes[lane], workspace.scratch[i], workspace.row_sums[i]);
  };
  if (threads == 1 || !run_on_team(threads, share))
    for (int i = 0; i < std::max(threads, 1); ++i) share(i);
  job.join(n);
}

}  // namespace

void observe(const BufferView* views, std::int64_t n, TableView table, const Outputs& out) {
  with_workspace([&](Workspace& workspace) { run(workspace, views, n, table, out); });
}

void sketch(const BufferView* views, std::int64_t n, double* out, int buckets) {
  // A summary that nobody wants: the bins make the pass five times as long as it has to be, and still short.
  constexpr int kBits = 4;
  std::vector<BufferView> own(views, views + n);
  for (BufferView& view : own) view.row = 0;
  Record record = empty_record();
  std::vector<std::uint64_t> counts(std::size_t{2} << (8 + kBits));
  Outputs outputs;
  outputs.sketch = out;
  outputs.buckets = buckets;
  observe(own.data(), n, {&record, counts.data(), 1, kBits}, outputs);
}

void update_coordinates(const BufferView* views, std::int64_t n, const Piece* pieces) {
  Job job{};
  job.cut(views, n);
  const Kernels& k = kernels();
  const auto share = [&](std::int64_t begin, std::int64_t end) {
    std::int64_t v = job.view_of(begin);
    for (std::int64_t t = begin; t < end; ++t) {
      while (job.first_tile[v + 1] <= t) ++v;
      k.update_piece(job.tile_of(v, t), pieces[v]);
    }
  };
  const std::int64_t tiles = job.tiles();
  const int threads = static_cast<int>(std::min<std::int64_t>(team_size(), std::max<std::int64_t>(tiles / 4, 1)));
  const auto part = [&](int i) { share(tiles * i / threads, tiles * (i + 1) / threads); };
  if (threads == 1 || !run_on_team(threads, part)) share(0, tiles);
}

namespace {

// Call f(first, last) for the runs of bins of a row that may be in use.
template <typename F>
void for_bins_in_use(const Record& r, std::int64_t bins, F f) {
  const std::int64_t half = bins / 2;
  f(std::int64_t{0}, std::int64_t{1});
  f(half, half + 1);
  if (r.low_bin > r.high_bin) return;
  const std::int64_t low = std::max<std::int64_t>(r.low_bin, 1);
  f(low, r.high_bin + 1);
  f(half + low, half + r.high_bin + 1);
}

}  // namespace

void fold(TableView into, TableView from) {
  const SubnormalMode mode(SubnormalMode::kKeep);
  const std::int64_t bins = from.bins();
  for (std::int64_t row = 0; row < from.rows; ++row) {
    const Record& record = from.records[row];
    std::uint64_t* const to_counts = into.counts + row * bins;
    const std::uint64_t* const counts = from.counts + row * bins;
    for_bins_in_use(record, bins, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to_counts[i] += counts[i];
    });
    merge(into.records[row], record);
  }
  if (into.logs == nullptr || from.logs == nullptr) return;
  for (std::int64_t i = 0; i < from.rows * kBlockSizes; ++i) add_logs(into.logs[i], from.logs[i]);
}

void clear(TableView table) {
  for (std::int64_t row = 0; row < table.rows; ++row) {
    std::uint64_t* const counts = table.counts + row * table.bins();
    for_bins_in_use(table.records[row], table.bins(), [&](std::int64_t begin, std::int64_t end) {
      std::memset(counts + begin, 0, (end - begin) * sizeof(std::uint64_t));
    });
    table.records[row] = empty_record();
  }
  if (table.logs != nullptr) std::fill_n(table.logs, table.rows * kBlockSizes, LogSums{});
}

int num_threads() { return team_size(); }
void set_num_threads(int n) { set_team_size(n); }

}  // namespace gradtail::cpu

// Cuts views into tiles, gives each thread a run of tiles, and joins the partial records in tile order:
// the same sums in the same order whatever the number of threads.

#include <algorithm>
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

// Memory of one thread, kept between calls.
class Scratch {
 public:
  // By the caller, before the threads start: an exception in one of them would end the process.
  void reserve(int bits) {
    const std::size_t size = 2 * bins(bits) + kGap;
    if (memory_.size() < size) memory_.assign(size, 0);
  }
  Counters counters(int bits) { return {memory_.data(), memory_.data() + bins(bits) + kGap, bits}; }

 private:
  static constexpr std::size_t kGap = 16 * 3;
  static std::size_t bins(int bits) { return std::size_t{2} << (8 + bits); }

  std::vector<std::uint32_t> memory_;
};

// Move counters to a row of the table, and zero them.
void flush(const Counters& counters, std::int64_t low, std::int64_t high, std::uint64_t* row) {
  const std::int64_t half = std::int64_t{1} << (8 + counters.bits);
  const auto move = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      row[i] += counters.first[i] + counters.second[i];  // 32-bit sum: counts taken back may have wrapped
      counters.first[i] = counters.second[i] = 0;
    }
  };
  move(0, 1);
  move(half, half + 1);
  if (low <= high) {
    low = std::max<std::int64_t>(low, 1);
    move(low, high + 1);
    move(half + low, half + high + 1);
  }
}

struct Job {
  const BufferView* views;
  TableView table;
  TileFunction tile;
  std::vector<std::int64_t> first_tile;  // of each view; one more at the end
  std::vector<Record> partial;           // one a tile
  std::mutex rows;                       // rows are shared by threads where their runs meet

  std::int64_t tiles() const { return first_tile.back(); }

  // The tiles [begin, end), on one thread.
  void run(std::int64_t begin, std::int64_t end, Scratch& scratch) {
    Counters counters = scratch.counters(table.bits);
    std::int64_t low = kNoBin, high = -1, waiting = 0;
    std::int64_t v = std::upper_bound(first_tile.begin(), first_tile.end(), begin) - first_tile.begin() - 1;
    for (std::int64_t t = begin; t < end; ++t) {
      while (first_tile[v + 1] <= t) ++v;
      const BufferView& view = views[v];
      const std::int64_t offset = (t - first_tile[v]) * kTile;
      const std::int64_t size = std::min(kTile, view.size - offset);
      const auto* bytes = reinterpret_cast<const unsigned char*>(static_cast<std::uintptr_t>(view.data));
      tile({bytes + offset * itemsize_of(view.dtype), size, view.start + offset, view.dtype}, partial[t], counters);
      low = std::min(low, partial[t].low_bin);
      high = std::max(high, partial[t].high_bin);
      waiting += size;
      const bool last = t + 1 == end || (first_tile[v + 1] == t + 1 && row_after(v) != view.row);
      if (last || waiting >= kFlushEvery) {
        const std::lock_guard<std::mutex> lock(rows);
        flush(counters, low, high, table.counts + view.row * table.bins());
        low = kNoBin, high = -1, waiting = 0;
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

  void join(std::int64_t n) {
    const SubnormalMode mode(SubnormalMode::kKeep);
    for (std::int64_t v = 0; v < n; ++v) {
      Record& row = table.records[views[v].row];
      row.mantissa = std::max<std::int64_t>(row.mantissa, mantissa_of(views[v].dtype));
      for (std::int64_t t = first_tile[v]; t < first_tile[v + 1]; ++t) merge(row, partial[t]);
    }
  }
};

struct Workspace {
  Job job;
  std::vector<Scratch> scratch;
};

// One workspace serves the usual case of one caller; a second caller at the same time makes its own. Never
// destroyed at exit: a daemon thread may still be in the pass.
std::mutex workspace_owner;
Workspace& shared_workspace = *new Workspace;

void run(Workspace& workspace, const BufferView* views, std::int64_t n, TableView table) {
  Job& job = workspace.job;
  job.views = views;
  job.table = table;
  job.tile = tile_function();
  job.first_tile.resize(n + 1);
  std::int64_t elements = 0;
  job.first_tile[0] = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    elements += views[v].size;
    job.first_tile[v + 1] = job.first_tile[v] + (views[v].size + kTile - 1) / kTile;
  }
  const std::int64_t tiles = job.tiles();
  job.partial.resize(tiles);
  const int threads = elements < kAlone ? 1 : static_cast<int>(std::min<std::int64_t>(team_size(), tiles));
  if (static_cast<int>(workspace.scratch.size()) < threads) workspace.scratch.resize(threads);
  for (int i = 0; i < threads; ++i) workspace.scratch[i].reserve(table.bits);
  const auto share = [&](int i) { job.run(tiles * i / threads, tiles * (i + 1) / threads, workspace.scratch[i]); };
  if (threads == 1 || !run_on_team(threads, share))
    for (int i = 0; i < threads; ++i) share(i);
  job.join(n);
}

}  // namespace

void summarize(const BufferView* views, std::int64_t n, TableView table) {
  std::unique_lock<std::mutex> lock(workspace_owner, std::try_to_lock);
  if (lock) {
    run(shared_workspace, views, n, table);
  } else {
    const auto own = std::make_unique<Workspace>();
    run(*own, views, n, table);
  }
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
}

void clear(TableView table) {
  for (std::int64_t row = 0; row < table.rows; ++row) {
    std::uint64_t* const counts = table.counts + row * table.bins();
    for_bins_in_use(table.records[row], table.bins(), [&](std::int64_t begin, std::int64_t end) {
      std::memset(counts + begin, 0, (end - begin) * sizeof(std::uint64_t));
    });
    table.records[row] = empty_record();
  }
}

int num_threads() { return team_size(); }
void set_num_threads(int n) { set_team_size(n); }

}  // namespace gradtail::cpu

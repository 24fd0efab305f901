// The second kernel: joins what the first one found, in an order that the sizes of the views set, and leaves
// everything ready for the next update. Its tasks are the rows, parts of the sketch, of the tracks and of the
// CoordinateMoments; the last block to finish closes the update and tells the host.
#pragma once

#include "../core/moments.hpp"
#include "coordinates.cuh"
#include "device.hpp"
#include "layout.hpp"
#include "pass.cuh"

namespace gradtail::cuda {

// What another block of this launch has written, past a cache that may hold what was there before.
template <typename T>
GRADTAIL_DEVICE T fresh(const T& x) {
  return *static_cast<const volatile T*>(&x);
}

template <bool kWide>
class Finish {
  using Acc = std::conditional_t<kWide, double, float>;
  static constexpr int kThreads = kFinishThreads, kWarps = kThreads / 32;
  static constexpr int kSlices = kThreads / kGroup;  // that share the sum of eight buckets
  static constexpr int kFoldSlices = kThreads / kFold;

  struct Shared {
    double sums[kWarps][4];
    double buckets[kThreads];
    Record record;
    int flag;
  };

 public:
  static constexpr std::size_t kSharedBytes = sizeof(Shared);

  GRADTAIL_DEVICE Finish(const PassArguments& of, unsigned char* memory)
      : of_(of),
        s_(of.state),
        plan_(of.plan),
        shared_(*reinterpret_cast<Shared*>(memory)),
        thread_(static_cast<int>(threadIdx.x)),
        parity_(parity_of(of)),
        fresh_(of.step.fresh != 0 || of.state.control->fresh != 0),
        steps_(of.state.control->steps + of.step.begin) {}

  GRADTAIL_DEVICE void run() {
    const bool skipped = left_out(of_);
    const std::int64_t rows = s_.rows, sketch = rows + (s_.sketched != 0 ? s_.buckets / kGroup : 0);
    const std::int64_t tracks = sketch + (s_.tracks + kThreads - 1) / kThreads;
    const std::int64_t tasks = tracks + (plan_.cells + kCellsATask - 1) / kCellsATask;
    for (std::int64_t task = blockIdx.x; task < tasks && !skipped; task += gridDim.x) {
      if (task < rows)
        end_row(static_cast<int>(task));
      else if (task < sketch)
        join_sketch(static_cast<int>(task - rows));
      else if (task < tracks)
        follow_tracks(static_cast<int>(task - sketch));
      else
        update_coordinates<kThreads>(plan_, (task - tracks) * kCellsATask);
    }
    __threadfence();
    __syncthreads();
    if (thread_ == 0) shared_.flag = atomicAdd(&s_.control->finished, 1u) == gridDim.x - 1;
    __syncthreads();
    if (shared_.flag == 0) return;
    __threadfence();  // what the others had written before they said so
    close(skipped);
  }

 private:
  GRADTAIL_DEVICE std::int64_t bins() const { return std::int64_t{2} << (8 + s_.bits); }
  GRADTAIL_DEVICE std::int64_t slot(int window) const { return (steps_ - 1) % window; }

  // The largest of all threads' values, none negative.
  GRADTAIL_DEVICE double block_max(double x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(kAllLanes, x, lanes));
    __syncthreads();
    if (thread_ % 32 == 0) shared_.sums[thread_ / 32][0] = x;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) x = fmax(x, shared_.sums[w][0]);
    return x;
  }

  // Four sums over all threads, the same in each.
  GRADTAIL_DEVICE void block_sums(double (&x)[4]) {
    for (int p = 0; p < 4; ++p)
      for (int lanes = 16; lanes > 0; lanes /= 2) x[p] += __shfl_xor_sync(kAllLanes, x[p], lanes);
    __syncthreads();
    for (int p = 0; p < 4; ++p)
      if (thread_ % 32 == 0) shared_.sums[thread_ / 32][p] = x[p];
    __syncthreads();
    for (int p = 0; p < 4; ++p) {
      x[p] = 0;
      for (int w = 0; w < kWarps; ++w) x[p] += shared_.sums[w][p];
    }
  }

  // ---- rows

  GRADTAIL_DEVICE void end_row(int row) {
    const RowPlan plan = plan_.rows[row];
    double largest = 0;
    for (int i = plan.first_item + thread_; i < plan.last_item; i += kThreads)
      largest = fmax(largest, plan_.item_sums[i].max_abs);
    largest = block_max(largest);
    const int exponent = exponent_of(largest);
    double sums[4] = {};
    for (int i = plan.first_item + thread_; i < plan.last_item; i += kThreads) {
      const ItemSums& item = plan_.item_sums[i];
      for (int p = 0; p < 4; ++p) sums[p] += item.sum[p] * power_of_two((p + 1) * (item.exponent - exponent));
    }
    block_sums(sums);
    if (of_.step.begin != 0) fold_counts(row);
    if (of_.step.begin != 0 && s_.stable != 0 && thread_ < kBlockSizes) fold_logs(row * kBlockSizes + thread_);
    if (s_.fold > 0) join_row_sketch(row, plan);
    __syncthreads();
    if (thread_ == 0) end_record(row, plan, sums, largest);
    __syncthreads();
  }

  // The counts of the step before go to the open block, and make room for those of the step after this one.
  GRADTAIL_DEVICE void fold_counts(int row) {
    const Record& before = s_.newest_records[parity_ ^ 1][row];
    const std::int64_t half = bins() / 2, low = before.low_bin, high = before.high_bin;
    std::uint64_t* const open = s_.open_counts + row * bins();
    for (std::int64_t bin = thread_; bin < half; bin += kThreads) {
      if (!fresh_ && bin != 0 && (bin < low || bin > high)) continue;
      for (int sign = 0; sign < 2; ++sign) {
        const std::int64_t at = bin + sign * half;
        const std::uint64_t n = take_count(row * bins() + at);
        open[at] = fresh_ ? n : open[at] + n;
      }
    }
  }

  // Likewise the block sums.
  GRADTAIL_DEVICE void fold_logs(std::int64_t at) {
    LogTally& before = s_.newest_logs[parity_ ^ 1][at];
    LogTally& open = s_.open_logs[at];
    if (fresh_) open = LogTally{};
    open.blocks += before.blocks;
    open.zeros += before.zeros;
    open.nonfinite += before.nonfinite;
    open.overflowed += before.overflowed;
    open.sum += before.sum;
    open.squares += before.squares;
    before = LogTally{};
  }

  GRADTAIL_DEVICE std::uint64_t take_count(std::int64_t at) {
    void* const counts = s_.newest_counts[parity_ ^ 1];
    if (s_.wide_counts != 0) {
      auto& n = static_cast<std::uint64_t*>(counts)[at];
      const std::uint64_t taken = n;
      n = 0;
      return taken;
    }
    auto& n = static_cast<std::uint32_t*>(counts)[at];
    const std::uint64_t taken = n;
    n = 0;
    return taken;
  }

  GRADTAIL_DEVICE std::uint64_t newest_count(std::int64_t at) const {
    const void* const counts = s_.newest_counts[parity_];
    if (s_.wide_counts != 0) return static_cast<const std::uint64_t*>(counts)[at];
    return static_cast<const std::uint32_t*>(counts)[at];
  }

  // By one thread.
  GRADTAIL_DEVICE void end_record(int row, const RowPlan& plan, const double (&sums)[4], double largest) {
    RowIntegers& found = s_.row_integers[row];
    Record& newest = s_.newest_records[parity_][row];
    std::int32_t& present = s_.present[parity_][row];
    if (of_.step.begin != 0) {
      Record& before = s_.newest_records[parity_ ^ 1][row];
      Record& open = s_.open_records[row];
      if (fresh_) open = empty_record();
      merge(open, before);
      before = empty_record();
      newest = empty_record();
      present = 0;
    }
    if (plan.present != 0) {
      Record own = empty_record();
      own.zeros = static_cast<std::int64_t>(found.zeros);
      own.nan = static_cast<std::int64_t>(found.nan);
      own.posinf = static_cast<std::int64_t>(found.posinf);
      own.neginf = static_cast<std::int64_t>(found.neginf);
      own.overflowed = static_cast<std::int64_t>(found.overflowed);
      own.vanished = static_cast<std::int64_t>(found.vanished);
      own.first_nonfinite = found.first_nonfinite;
      own.count = plan.elements - own.nan - own.posinf - own.neginf;
      own.mantissa = plan.mantissa;
      if (found.high_bin >= 0) own.low_bin = found.low_bin, own.high_bin = found.high_bin;
      own.max_abs = largest;
      for (int p = 0; p < 4; ++p) own.sum[p] = sums[p];
      merge(newest, own);
      present = 1;
      const std::int64_t first = row * bins();
      const std::uint64_t smallest = newest_count(first) + newest_count(first + bins() / 2);
      if (smallest > static_cast<std::uint64_t>(newest.zeros)) {  // not all of these bins are zeros
        newest.low_bin = 0;
        newest.high_bin = newest.high_bin < 0 ? 0 : newest.high_bin;
      }
      found = empty_integers();
    }
    const bool bad = newest.nan + newest.posinf + newest.neginf > 0;
    const double norm = ldexp(sqrt(newest.sum[1]), exponent_of(newest.max_abs));
    s_.row_norms[slot(s_.log_slots) * s_.rows + row] = present == 0 ? NAN : bad ? INFINITY : norm;
  }

  GRADTAIL_DEVICE static RowIntegers empty_integers() {
    RowIntegers none{};
    none.first_nonfinite = kNoIndex;
    none.low_bin = INT32_MAX;
    none.high_bin = -1;
    return none;
  }

  GRADTAIL_DEVICE void join_row_sketch(int row, const RowPlan& plan) {
    const int b = thread_ % kFold, slice = thread_ / kFold;
    const Acc* const folds = folds_of<Acc>(plan_);
    double sum = 0;
    for (int i = plan.first_item + slice; i < plan.last_item; i += kFoldSlices)
      sum += static_cast<double>(folds[i * std::int64_t{kFold} + b]);
    shared_.buckets[thread_] = sum;
    __syncthreads();
    double value = 0;
    if (thread_ < kFold) {
      for (int other = 0; other < kFoldSlices; ++other) value += shared_.buckets[other * kFold + b];
      value *= kWide ? 1.0 : 1.0 / static_cast<double>(kSketchScale);
      double& total = s_.row_sketches[row * std::int64_t{kFold} + b];
      total = of_.step.begin != 0 ? value : total + value;
      value = total;
    }
    const int exponent = exponent_of(block_max(fabs(value)));
    if (s_.row_window == 0) return;
    const std::int64_t at = slot(s_.row_window) * s_.rows + row;
    if (thread_ < kFold) s_.row_ring[at * kFold + b] = static_cast<float>(ldexp(value, -exponent));
    if (thread_ == 0) s_.row_ring_exponents[at] = exponent;
  }

  // ---- sketch and tracks

  // Eight buckets, summed over chains in slices.
  GRADTAIL_DEVICE void join_sketch(int task) {
    const int bucket = task * kGroup + thread_ % kGroup, slice = thread_ / kGroup;
    const std::int64_t width = std::int64_t{plan_.stripe} * plan_.stripes;
    const int subs = s_.buckets < plan_.stripe ? plan_.stripe / s_.buckets : 1;
    const Acc* const sketch = sketch_of<Acc>(plan_);
    double sum = 0;
    for (int term = slice; term < plan_.chains * subs; term += kSlices)
      sum += static_cast<double>(sketch[term / subs * width + std::int64_t{term % subs} * s_.buckets + bucket]);
    __syncthreads();
    shared_.buckets[thread_] = sum;
    __syncthreads();
    if (slice != 0) return;
    double total = 0;
    for (int other = 0; other < kSlices; ++other) total += shared_.buckets[other * kGroup + thread_];
    total *= kWide ? 1.0 : 1.0 / static_cast<double>(kSketchScale);
    s_.sketch[bucket] = of_.step.begin != 0 ? total : s_.sketch[bucket] + total;
  }

  GRADTAIL_DEVICE void follow_tracks(int task) {
    const int column = task * kThreads + thread_;
    if (column >= s_.tracks) return;
    const TrackPlan track = plan_.tracks[column];
    const std::int64_t at = slot(s_.track_window) * s_.tracks + column;
    if (track.view >= 0) {
      s_.track_values[at] = static_cast<float>(value_at(plan_.views[track.view], track.offset));
      s_.track_observed[at] = 1;
    } else if (of_.step.begin != 0) {
      s_.track_observed[at] = 0;
    }
  }

  // ---- the end of the update, by the last block

  GRADTAIL_DEVICE void close(bool skipped) {
    if (skipped) {
      if (thread_ == 0) end_control(false, 0);
      return;
    }
    if (s_.sketched != 0 && s_.window > 0) store_sketch();
    double largest = 0;
    for (int row = thread_; row < s_.rows; row += kThreads)
      largest = fmax(largest, fresh(s_.newest_records[parity_][row].max_abs));
    const int exponent = exponent_of(block_max(largest));
    double sums[4] = {};  // squares, non-finite values, NaNs
    for (int row = thread_; row < s_.rows; row += kThreads) {
      const Record& record = s_.newest_records[parity_][row];
      const int own = exponent_of(fresh(record.max_abs));
      sums[0] += fresh(record.sum[1]) * power_of_two(2 * (own - exponent));
      const std::int64_t nan = fresh(record.nan);
      sums[1] += static_cast<double>(nan + fresh(record.posinf) + fresh(record.neginf));
      sums[2] += static_cast<double>(nan);
    }
    block_sums(sums);
    end_views();
    end_pieces<kThreads>(plan_);
    __syncthreads();
    if (thread_ != 0) return;
    const double finite = ldexp(sqrt(sums[0]), exponent);
    publish(finite, sums[2] > 0 ? NAN : sums[1] > 0 ? INFINITY : finite, static_cast<std::int64_t>(sums[1]));
  }

  GRADTAIL_DEVICE void store_sketch() {
    double largest = 0;
    for (int b = thread_; b < s_.buckets; b += kThreads) largest = fmax(largest, fabs(fresh(s_.sketch[b])));
    const int exponent = exponent_of(block_max(largest));
    const std::int64_t at = slot(s_.window);
    for (int b = thread_; b < s_.buckets; b += kThreads)
      s_.ring[at * s_.buckets + b] = static_cast<float>(ldexp(fresh(s_.sketch[b]), -exponent));
    if (thread_ == 0) s_.ring_exponents[at] = exponent;
  }

  // Find the first view with a value that is not finite. Views keep their largest value until pieces have used it.
  GRADTAIL_DEVICE void end_views() {
    __syncthreads();
    if (thread_ == 0) shared_.flag = INT32_MAX;
    __syncthreads();
    for (int v = thread_; v < plan_.n_views; v += kThreads)
      if (plan_.view_integers[v].first_nonfinite != kNoIndex) atomicMin(&shared_.flag, v);
    __syncthreads();
    first_view_ = shared_.flag == INT32_MAX ? -1 : shared_.flag;
    first_index_ = first_view_ < 0 ? kNoIndex : plan_.view_integers[first_view_].first_nonfinite;
    __syncthreads();
    for (int v = thread_; v < plan_.n_views; v += kThreads) plan_.view_integers[v].first_nonfinite = kNoIndex;
  }

  GRADTAIL_DEVICE void publish(double finite, double norm, std::int64_t nonfinite) {
    const Control& c = *s_.control;
    const std::int64_t sequence = c.sequence + 1;
    StepResult& out = s_.results[(sequence - 1) % s_.result_slots];
    volatile std::int64_t* const mark = &out.sequence;
    *mark = 0;
    __threadfence_system();
    out.step = step();
    out.norm = norm;
    out.finite_norm = finite;
    out.nonfinite = nonfinite;
    out.steps = steps_;
    out.first_nonfinite = first_index_;
    out.first_view = first_view_;
    __threadfence_system();
    *mark = sequence;
    end_control(true, norm);
  }

  GRADTAIL_DEVICE std::int64_t step() const {
    const Control& c = *s_.control;
    return of_.step.step >= 0 ? of_.step.step : c.step + of_.step.begin;
  }

  // By one thread: what the next update finds.
  GRADTAIL_DEVICE void end_control(bool observed, double norm) {
    Control& c = *s_.control;
    if (observed) {
      c.step = step();
      c.steps = steps_;
      c.parity = parity_;
      c.norm = norm;
      if (of_.step.begin != 0) c.fresh = 0;
      c.sequence += 1;
    } else if (of_.step.step < 0) {
      c.step += of_.step.begin;
    }
    c.calls += of_.step.begin;
    c.queue = 0;
    c.finished = 0;
  }

  const PassArguments& of_;
  const StateMemory& s_;
  const PlanMemory& plan_;
  Shared& shared_;
  std::int64_t first_view_ = -1, first_index_ = kNoIndex;
  int thread_, parity_;
  bool fresh_;
  std::int64_t steps_;
};

template <bool kWide>
GRADTAIL_KERNEL void GRADTAIL_BOUNDS(kFinishThreads, 2) finish_kernel(GRADTAIL_CONSTANT PassArguments of) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  Finish<kWide>(of, memory).run();
}

}  // namespace gradtail::cuda

// The first kernel: one read of every value. A team of kLanes threads takes a chain of items; thread v of it owns
// eight buckets of the sketch, group v of the stripe, and takes the groups of eight values that the map sends there. So
// the sketch stays in registers, and which of the eight a value goes to is known when the loop over the eight turns is
// unrolled: blocks of the map are taken in the order of their turn, eight blocks (an octet) at a time.
#pragma once

#include <cfloat>
#include <type_traits>

#include "../core/moments.hpp"
#include "../core/projection.hpp"
#include "arguments.cuh"
#include "device.hpp"
#include "group.cuh"
#include "histogram.cuh"
#include "layout.hpp"
#include "octets.cuh"
#include "sums.cuh"

namespace gradtail::cuda {

// What all threads know alike lies in shared memory, not in registers: the loop over octets needs those.
template <int kLanes, BinMode kMode, bool kWide>
class Pass {
  using Acc = typename Taker<kLanes, kMode, kWide>::Acc;
  using Bins = Histogram<kMode>;
  static constexpr int kWarps = kLanes / 32;
  static constexpr int kStripe = kLanes * kGroup;
  static constexpr int kLog2Stripe = kLanes == 512 ? 12 : 10;
  static_assert(kStripe == 1 << kLog2Stripe, "teams of 512 or of 128");
  static constexpr int kUsualBits = kMode == BinMode::kWindow ? 7 : 4;  // for which there are loops of their own
  static constexpr int kMoveEvery = 64;  // octets after which the sketch leaves the registers

  // Memory of the team, besides the bins.
  struct Shared {
    uint4 entries[kEntries];  // of the blocks ahead, octet by octet and in the order of turns
    Totals<kLanes> totals;
    double sums[kWarps][4];
    double max_abs[kWarps];
    Acc folds[kWarps][kFold];
    Acc fold[kFold];  // of the item
    Run run;
    std::int64_t next_run, next_unit;
    std::int64_t octet;    // that the entries begin with
    std::int64_t row;      // whose counters the bins are; -1: none
    std::uint64_t stored;  // stripes that the chain's slot has
    typename Bins::Row bins;
    Walk walk;  // over the units of which all is there
    std::int32_t chain, item;
    std::int32_t octets;  // since the sketch left the registers
    std::int32_t entries_end;
  };

 public:
  static std::size_t shared_bytes(int bits) { return sizeof(Shared) + Bins::bytes(bits); }

  GRADTAIL_DEVICE Pass(const PassArguments& of, unsigned char* memory)
      : of_(of),
        shared_(*reinterpret_cast<Shared*>(memory)),
        histogram_(reinterpret_cast<std::uint32_t*>(memory + sizeof(Shared)), shared_.bins, of.state) {}

  GRADTAIL_DEVICE void run() {
    if (left_out(of_)) return;
    histogram_.clear();
    while (true) {
      if (lane() == 0) {
        shared_.chain = static_cast<std::int32_t>(atomicAdd(&of_.state.control->queue, 1u));
        shared_.row = -1, shared_.stored = 0;
        if (shared_.chain < of_.plan.chains) shared_.item = of_.plan.chain_first[shared_.chain];
      }
      __syncthreads();
      if (shared_.chain >= of_.plan.chains) return;
      while (shared_.item < of_.plan.chain_first[shared_.chain + 1]) {
        run_item();
        __syncthreads();
        if (lane() == 0) ++shared_.item;
        __syncthreads();
      }
      if (shared_.row >= 0) end_row();
      __syncthreads();
    }
  }

 private:
  GRADTAIL_DEVICE static int lane() { return asked_lane(); }
  GRADTAIL_DEVICE const Item& item() const { return of_.plan.items[shared_.item]; }
  GRADTAIL_DEVICE const BufferView& view() const { return of_.plan.views[item().view]; }

  // Blocks of the map side by side in the team, and which of them this thread belongs to.
  GRADTAIL_DEVICE int log2_subs() const {
    return of_.state.log2_buckets < kLog2Stripe ? kLog2Stripe - of_.state.log2_buckets : 0;
  }
  GRADTAIL_DEVICE int sub() const { return lane() * kGroup >> of_.state.log2_buckets & ((1 << log2_subs()) - 1); }
  GRADTAIL_DEVICE int log2_octet() const { return of_.state.log2_buckets + 3; }

  GRADTAIL_DEVICE void run_item() {
    if (view().row != shared_.row) {
      if (shared_.row >= 0) end_row();
      begin_row();
    }
    reset();
    switch (view().dtype) {
      case kFloat64:
        if constexpr (kWide) run_item<double>();
        break;
      case kFloat32:
        run_item<float>();
        break;
      case kFloat16:
        run_item<Half>();
        break;
      default:
        run_item<Bfloat>();
    }
    end_item();
    if (of_.state.sketched != 0) {
      move_sketch();
      if (of_.state.fold > 0)
        for (int b = lane(); b < kFold; b += kLanes)
          folds_of<Acc>(of_.plan)[shared_.item * std::int64_t{kFold} + b] = shared_.fold[b];
    }
  }

  GRADTAIL_DEVICE void reset() {
    my_.sums = {};
    for (int p = 0; p < 4; ++p) shared_.totals.sum[p][lane()] = 0;
    shared_.totals.zeros[lane()] = 0;
    for (int a = 0; a < kGroup; ++a) my_.acc[a] = 0;
    for (int b = lane(); b < kFold; b += kLanes) shared_.fold[b] = 0;
    if (lane() == 0) shared_.octets = 0;
    if constexpr (!kWide) {
      if (view().dtype == kFloat16) {  // whose fourth powers float32 holds as they are
        my_.sums.inverse = 1;
      } else {  // a scale that hardly any value exceeds: those that do take the slow road
        const float largest = static_cast<float>(sampled_maximum());
        if (largest > 0) my_.sums.rescale(shared_.totals, largest);
      }
    }
  }

  // ---- rows

  GRADTAIL_DEVICE void begin_row() {
    const double largest = kMode == BinMode::kWindow ? sampled_maximum() : 0;
    __syncthreads();  // nobody asks for the row before
    if (lane() != 0) return;
    const std::int64_t row = view().row, bins = std::int64_t{2} << (8 + of_.state.bits);
    auto* const counts = static_cast<unsigned char*>(of_.state.newest_counts[parity_of(of_)]);
    histogram_.begin_row(counts + row * bins * (of_.state.wide_counts != 0 ? 8 : 4), &of_.state.row_integers[row],
                         largest == 0 ? 127 : static_cast<int>(bits_of(static_cast<float>(largest)) >> 23));
    shared_.row = row;
  }

  GRADTAIL_DEVICE void end_row() {
    __syncthreads();
    histogram_.flush();
    __syncthreads();
  }

  // The largest of a few finite values of the item, rounded to float32.
  GRADTAIL_DEVICE double sampled_maximum() {
    const std::int64_t n = item().end - item().begin, at = item().begin + n * lane() / kLanes;
    const float x = n > 0 ? static_cast<float>(value_at(view(), item().first_run * view().run + at)) : 0.0f;
    return team_max(is_finite(x) ? static_cast<double>(fabsf(x)) : 0.0);
  }

  // ---- items

  template <typename Raw>
  GRADTAIL_DEVICE void run_item() {
    if (lane() == 0) shared_.next_run = item().first_run;
    while (true) {
      __syncthreads();  // nobody reads the run before
      const std::int64_t q = shared_.next_run;
      if (q >= item().last_run) return;
      __syncthreads();
      if (lane() == 0) begin_run(q, sizeof(Raw));
      run_batches<Raw>();
    }
  }

  GRADTAIL_DEVICE void begin_run(std::int64_t q, int itemsize) {
    const Item& item = this->item();
    const BufferView& view = this->view();
    const std::int64_t origin = view.start + q * view.stride;  // index of the run's first element
    const std::int64_t left = view.size - q * view.run, length = left < view.run ? left : view.run;
    const bool alone = item.last_run - item.first_run == 1;
    Run& run = shared_.run;
    run.first = origin + (alone ? item.begin : 0);
    run.last = origin + (alone ? item.end : length);
    run.base = view.data + static_cast<std::uint64_t>(q * view.run - origin) * static_cast<unsigned>(itemsize);
    run.aligned = run.base % 16 == 0;
    shared_.next_unit = run.first >> log2_unit();
    shared_.next_run = q + 1;
  }

  // A unit is as many octets as there are blocks of r buckets side by side in the team; a batch is as many units as
  // there are entries for.
  GRADTAIL_DEVICE int log2_unit() const { return log2_octet() + log2_subs(); }

  template <typename Raw>
  GRADTAIL_DEVICE void run_batches() {
    while (true) {
      __syncthreads();  // the run is there, and nobody reads the entries of before
      const std::int64_t unit = shared_.next_unit, left = ((shared_.run.last - 1) >> log2_unit()) - unit + 1;
      if (left <= 0) return;
      const int batch = kEntries / kGroup >> log2_subs(), units = left < batch ? static_cast<int>(left) : batch;
      prepare(view().key, unit << log2_subs(), units << log2_subs());
      if (lane() == 0) {
        shared_.octet = unit << log2_subs();
        shared_.octets = (shared_.octets >= kMoveEvery ? 0 : shared_.octets) + units;
        const int step = kGroup << log2_subs();
        const bool begins = shared_.run.first > unit << log2_unit();
        const bool ends = shared_.run.last < (unit + units) << log2_unit();
        const int whole = kWide || !shared_.run.aligned ? 0 : ends ? units - 1 : units;
        shared_.entries_end = units * step;
        shared_.walk = {begins ? step : 0, whole * step, step, 1 << log2_unit()};
      }
      __syncthreads();
      if (lane() == 0) shared_.next_unit += units;
      run_batch<Raw>();
      if (shared_.octets >= kMoveEvery && of_.state.sketched != 0) move_sketch();
    }
  }

  // Hashes of the blocks of octets [first, first + n), where their turns say.
  GRADTAIL_DEVICE void prepare(std::uint64_t key, std::int64_t first, int n) {
    GRADTAIL_ROLLED
    for (int e = lane(); e < n * kGroup; e += kLanes) {
      const std::int64_t octet = first + e / kGroup;
      const int turn = e % kGroup;
      const int added = static_cast<int>(hash64(key, kLaneStream, static_cast<std::uint64_t>(octet)) >> 61);
      const int k = (turn - added) & (kGroup - 1);
      const SketchBlock block = sketch_block(key, octet * kGroup + k, of_.state.buckets);
      shared_.entries[e] = make_uint4(block.low, block.high, static_cast<std::uint32_t>(block.shift) * kGroup,
                                      static_cast<std::uint32_t>(k) << of_.state.log2_buckets);
    }
  }

  // The octets of this thread, one of each unit; `at` is the index of the first entry.
  template <typename Raw>
  GRADTAIL_DEVICE void run_batch() {
    for (int at = sub() * kGroup; at < shared_.entries_end; at += kGroup << log2_subs()) {
      std::uint32_t later = (1u << kGroup) - 1;  // turns whose group needs a look at each value
      if constexpr (!kWide) {
        if (at >= shared_.walk.first && at < shared_.walk.end) {
          constexpr bool kScaled = !std::is_same_v<Raw, Half>;
          if (of_.state.bits != kUsualBits)
            later = take_octets<Raw, -1, kScaled>(at);
          else if (kScaled && my_.sums.inverse != 1)
            later = take_octets<Raw, kUsualBits, kScaled>(at);
          else
            later = take_octets<Raw, kUsualBits, false>(at);
        }
      }
      if (later != 0) run_slowly<Raw>(at, later);
    }
  }

  // Leads to the octet of which a turn was left, or to the last one that is all there.
  template <typename Raw, int kBits, bool kScaled>
  GRADTAIL_DEVICE std::uint32_t take_octets(int& at) {
    return my_.template take_octets<Raw, kBits, kScaled>(base_of<Raw>(at), shared_.entries, at, shared_.walk, columns(),
                                                         shared_.totals, histogram_);
  }

  GRADTAIL_DEVICE Columns columns() const {
    const int mask = (1 << of_.state.log2_buckets) - kGroup;
    return {(lane() * kGroup & mask) + item().stripe * kStripe, mask};
  }

  GRADTAIL_DEVICE Extent extent_of(int at) const {
    const std::int64_t from = (shared_.octet + at / kGroup) << log2_octet();
    return {from, shared_.run.first - from, shared_.run.last - from};
  }

  template <typename Raw>
  GRADTAIL_DEVICE const Raw* base_of(int at) const {
    return reinterpret_cast<const Raw*>(shared_.run.base +
                                        static_cast<std::uint64_t>(extent_of(at).from) * sizeof(Raw));
  }

  template <typename Raw>
  GRADTAIL_DEVICE void run_slowly(int at, std::uint32_t later) {
    GRADTAIL_ROLLED
    for (; later != 0; later &= later - 1) {
      const int turn = __ffs(static_cast<int>(later)) - 1;
      my_.take_slowly(base_of<Raw>(at), extent_of(at), turn, shared_.entries[at + turn], columns(), shared_.totals,
                      [&](Acc x, int offset) { return count(x, extent_of(at).from + offset); });
    }
    my_.sums.move(shared_.totals);
  }

  // Count one value; false if it is not finite.
  GRADTAIL_DEVICE bool count(Acc value, std::int64_t index) {
    const float single = static_cast<float>(value);
    if (!(fabs(value) <= static_cast<Acc>(kWide ? DBL_MAX : static_cast<double>(FLT_MAX)))) {
      RowIntegers& row = of_.state.row_integers[view().row];
      atomicAdd(value != value ? &row.nan : value < 0 ? &row.neginf : &row.posinf, 1ull);
      atomicMin(&row.first_nonfinite, static_cast<long long>(index));
      atomicMin(&of_.plan.view_integers[item().view].first_nonfinite, static_cast<long long>(index));
      return false;
    }
    if (value == 0) ++shared_.totals.zeros[lane()];
    if (kWide) {
      const bool overflowed = !is_finite(single);
      const bool vanished = value != 0 && (bits_of(single) & kMagnitudeMask) == 0;
      RowIntegers& row = of_.state.row_integers[view().row];
      if (overflowed) atomicAdd(&row.overflowed, 1ull);
      if (vanished) atomicAdd(&row.vanished, 1ull);
      if (overflowed || vanished) return true;
    }
    histogram_.count(bits_of(single));
    return true;
  }

  // ---- what is left at the end of an item

  // The largest of all threads' values, none negative.
  GRADTAIL_DEVICE double team_max(double x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(kAllLanes, x, lanes));
    __syncthreads();
    if (lane() % 32 == 0) shared_.max_abs[lane() / 32] = x;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) x = fmax(x, shared_.max_abs[w]);
    return x;
  }

  GRADTAIL_DEVICE void end_item() {
    const double largest = team_max(static_cast<double>(my_.sums.max_abs));
    const int exponent = exponent_of(largest);
    for (int p = 0; p < 4; ++p) {
      const double own = shared_.totals.sum[p][lane()] * power_of_two((p + 1) * (my_.sums.exponent() - exponent));
      const double sum = warp_sum(own);
      if (lane() % 32 == 0) shared_.sums[lane() / 32][p] = sum;
    }
    std::uint32_t zeros = shared_.totals.zeros[lane()];
    for (int lanes = 16; lanes > 0; lanes /= 2) zeros += __shfl_xor_sync(kAllLanes, zeros, lanes);
    if (lane() % 32 == 0 && zeros > 0)
      atomicAdd(&of_.state.row_integers[view().row].zeros, static_cast<unsigned long long>(zeros));
    __syncthreads();
    ItemSums& out = of_.plan.item_sums[shared_.item];
    if (lane() < 4) {
      double sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += shared_.sums[w][lane()];
      out.sum[lane()] = sum;
    }
    if (lane() == 0) {
      out.max_abs = largest;
      out.exponent = exponent;
      unsigned long long pattern;
      memcpy(&pattern, &largest, sizeof pattern);
      atomicMax(&of_.plan.view_integers[item().view].max_abs, pattern);
    }
  }

  // Add the registers of the sketch to the chain's slot and to the item's own small sketch, and empty them.
  GRADTAIL_DEVICE void move_sketch() {
    const int stripe = item().stripe;
    const std::int64_t width = std::int64_t{of_.plan.stripe} * of_.plan.stripes;
    Acc* const slot = sketch_of<Acc>(of_.plan) + shared_.chain * width + stripe * of_.plan.stripe + lane() * kGroup;
    const bool first = (shared_.stored >> stripe & 1) == 0;
    const int half = lane() % 32 / 16;
    GRADTAIL_UNROLL
    for (int a = 0; a < kGroup; ++a) {
      const Acc bucket = my_.acc[a];
      slot[a] = first ? bucket : slot[a] + bucket;
      my_.acc[a] = 0;
      if (of_.state.fold > 0) {  // buckets are joined modulo 128: those of lanes that are 16 apart
        const Acc both = bucket + __shfl_xor_sync(kAllLanes, bucket, 16);
        if (half == 0) shared_.folds[lane() / 32][lane() % 16 * kGroup + a] = both;
      }
    }
    __syncthreads();
    if (lane() == 0) shared_.stored |= 1ull << stripe;
    if (of_.state.fold > 0) {
      for (int b = lane(); b < kFold; b += kLanes) {
        Acc sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += shared_.folds[w][b];
        shared_.fold[b] += sum;
      }
      __syncthreads();
    }
  }

  const PassArguments& of_;
  Shared& shared_;
  Bins histogram_;
  Taker<kLanes, kMode, kWide> my_;
};

template <int kLanes, BinMode kMode, bool kWide>
GRADTAIL_KERNEL void GRADTAIL_BOUNDS(kLanes, kWide ? 1 : 1024 / kLanes)
    pass_kernel(GRADTAIL_CONSTANT PassArguments of) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  Pass<kLanes, kMode, kWide>(of, memory).run();
}

}  // namespace gradtail::cuda

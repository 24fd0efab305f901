// The first kernel: one read of every value. A team of kLanes threads takes a chain of items; thread v of it owns
// eight buckets of the sketch, group v of the stripe, and takes the groups of eight values that the map sends there. So
// the sketch stays in registers, and which of the eight a value goes to is known when the loop over the eight turns is
// unrolled: blocks of the map are taken in the order of their turn, eight blocks (an octet) at a time.
#pragma once

#include <cfloat>
#include <type_traits>

#include "../core/moments.hpp"
#include "../core/projection.hpp"
#include "device.hpp"
#include "group.cuh"
#include "histogram.cuh"
#include "layout.hpp"
#include "sums.cuh"

namespace gradtail::cuda {

// Whether the cadence leaves this update out. Both kernels ask before the last block of the second changes Control.
GRADTAIL_DEVICE bool left_out(const PassArguments& of) {
  const Control& c = *of.state.control;
  return of.step.cadence != 0 && c.every > 1 && c.calls % c.every != 0;
}

GRADTAIL_DEVICE int parity_of(const PassArguments& of) { return of.state.control->parity ^ of.step.begin; }

// Partials of updates with float64 are double, and their sketches unscaled.
template <typename Acc>
GRADTAIL_DEVICE Acc* sketch_of(const PlanMemory& plan) {
  return reinterpret_cast<Acc*>(plan.chain_sketch);
}
template <typename Acc>
GRADTAIL_DEVICE Acc* folds_of(const PlanMemory& plan) {
  return reinterpret_cast<Acc*>(plan.item_folds);
}

template <int kLanes, BinMode kMode, bool kWide>
class Pass {
  using Acc = std::conditional_t<kWide, double, float>;
  using Sums = std::conditional_t<kWide, WideSums<kLanes>, NarrowSums<kLanes>>;
  static constexpr int kWarps = kLanes / 32;
  static constexpr int kStripe = kLanes * kGroup;
  static constexpr int kMoveEvery = 64;  // octets after which the sketch leaves the registers

  // The values of an item that lie side by side: whole-parameter indices [first, last), index i at base + i * itemsize.
  struct Run {
    std::int64_t first, last;
    std::uint64_t base;
    bool aligned;
  };

  // Memory of the team, besides the bins.
  struct Shared {
    uint4 entries[kEntries];  // of the blocks ahead, octet by octet and in the order of turns
    Totals<kLanes> totals;
    double sums[kWarps][4];
    double max_abs[kWarps];
    Acc folds[kWarps][kFold];
    Acc fold[kFold];  // of the item
    Run run;
    std::int32_t chain;
  };

 public:
  static std::size_t shared_bytes(int bits) { return sizeof(Shared) + Histogram<kMode>::bytes(bits); }

  GRADTAIL_DEVICE Pass(const PassArguments& of, unsigned char* memory)
      : of_(of),
        shared_(*reinterpret_cast<Shared*>(memory)),
        histogram_(reinterpret_cast<std::uint32_t*>(memory + sizeof(Shared)), of.state),
        lane_(static_cast<int>(threadIdx.x)),
        log2_r_(of.state.log2_buckets),
        subs_(of.state.buckets < kStripe ? kStripe >> log2_r_ : 1),
        sub_(lane_ * kGroup >> log2_r_ & (subs_ - 1)) {}

  GRADTAIL_DEVICE void run() {
    if (left_out(of_)) return;
    histogram_.clear();
    while (true) {
      if (lane_ == 0) shared_.chain = static_cast<std::int32_t>(atomicAdd(&of_.state.control->queue, 1u));
      __syncthreads();
      const int chain = shared_.chain;
      __syncthreads();
      if (chain >= of_.plan.chains) return;
      run_chain(chain);
    }
  }

 private:
  GRADTAIL_DEVICE void run_chain(int chain) {
    chain_ = chain, stored_ = 0;
    std::int64_t row = -1;
    for (int i = of_.plan.chain_first[chain]; i < of_.plan.chain_first[chain + 1]; ++i) {
      const Item item = of_.plan.items[i];
      const BufferView& view = of_.plan.views[item.view];
      if (view.row != row) {
        if (row >= 0) end_row();
        row = view.row;
        begin_row(item, view);
      }
      reset(item.view);
      if constexpr (!kWide) {  // a scale that hardly any value exceeds: those that do take the slow road
        const float largest = static_cast<float>(sampled_maximum(item, view));
        if (largest > 0) sums_.rescale(shared_.totals, largest);
      }
      switch (view.dtype) {
        case kFloat64:
          if constexpr (kWide) run_item<double>(item, view);
          break;
        case kFloat32:
          run_item<float>(item, view);
          break;
        case kFloat16:
          run_item<Half>(item, view);
          break;
        default:
          run_item<Bfloat>(item, view);
      }
      end_item(i, item);
      if (of_.state.sketched != 0) {
        move_sketch(item.stripe);
        if (of_.state.fold > 0)
          for (int b = lane_; b < kFold; b += kLanes) folds_of<Acc>(of_.plan)[i * std::int64_t{kFold} + b] = shared_.fold[b];
      }
    }
    if (row >= 0) end_row();
  }

  GRADTAIL_DEVICE void reset(int view) {
    view_ = view;
    sums_ = Sums();
    for (int p = 0; p < 4; ++p) shared_.totals.sum[p][lane_] = 0;
    zeros_ = 0;
    octets_ = 0;
    for (int a = 0; a < kGroup; ++a) acc_[a] = 0;
    for (int b = lane_; b < kFold; b += kLanes) shared_.fold[b] = 0;
  }

  // ---- rows

  GRADTAIL_DEVICE void begin_row(const Item& item, const BufferView& view) {
    const std::int64_t bins = std::int64_t{2} << (8 + of_.state.bits);
    const std::int64_t bytes = view.row * bins * (of_.state.wide_counts != 0 ? 8 : 4);
    auto* const counts = static_cast<unsigned char*>(of_.state.newest_counts[parity_of(of_)]) + bytes;
    const double largest = kMode == BinMode::kWindow ? sampled_maximum(item, view) : 0;
    histogram_.begin_row(counts, &of_.state.row_integers[view.row],
                         largest == 0 ? 127 : static_cast<int>(bits_of(static_cast<float>(largest)) >> 23));
  }

  GRADTAIL_DEVICE void end_row() {
    __syncthreads();
    histogram_.flush();
    __syncthreads();
  }

  // The largest of a few finite values of an item, rounded to float32.
  GRADTAIL_DEVICE double sampled_maximum(const Item& item, const BufferView& view) {
    const std::int64_t n = item.end - item.begin, at = item.begin + n * lane_ / kLanes;
    const float x = n > 0 ? static_cast<float>(value_at(view, item.first_run * view.run + at)) : 0.0f;
    return team_max(is_finite(x) ? static_cast<double>(fabsf(x)) : 0.0);
  }

  // ---- items

  template <typename Raw>
  GRADTAIL_DEVICE void run_item(const Item& item, const BufferView& view) {
    for (std::int64_t q = item.first_run; q < item.last_run; ++q) {
      const std::int64_t origin = view.start + q * view.stride;  // index of the run's first element
      const std::int64_t left = view.size - q * view.run, length = left < view.run ? left : view.run;
      const bool alone = item.last_run - item.first_run == 1;
      __syncthreads();  // nobody reads the run before
      if (lane_ == 0) {
        Run& run = shared_.run;
        run.first = origin + (alone ? item.begin : 0);
        run.last = origin + (alone ? item.end : length);
        run.base = view.data + static_cast<std::uint64_t>(q * view.run - origin) * sizeof(Raw);
        run.aligned = run.base % 16 == 0;
      }
      __syncthreads();
      run_octets<Raw>(item, view, shared_.run);
    }
  }

  // A unit is as many octets as there are blocks of r buckets side by side in the team.
  template <typename Raw>
  GRADTAIL_DEVICE void run_octets(const Item& item, const BufferView& view, const Run& run) {
    const int log2_octet = log2_r_ + 3;
    const std::int64_t unit = static_cast<std::int64_t>(subs_) << log2_octet;
    const std::int64_t first = run.first / unit, last = (run.last - 1) / unit;
    const int batch = kEntries / kGroup / subs_;
    const int mine = (lane_ & ((1 << log2_r_) / kGroup - 1)) + item.stripe * kLanes;
    for (std::int64_t u = first; u <= last; u += batch) {
      const std::int64_t end = u + batch <= last + 1 ? u + batch : last + 1;
      __syncthreads();  // nobody reads the entries of before
      prepare(view.key, u * subs_, static_cast<int>(end - u) * subs_);
      __syncthreads();
      for (std::int64_t now = u; now < end; ++now) {
        const std::int64_t octet = now * subs_ + sub_;
        const std::int64_t from = octet << log2_octet;
        const bool inside = run.aligned && from >= run.first && from + (std::int64_t{8} << log2_r_) <= run.last;
        run_octet<Raw>(view, run, from, shared_.entries + (octet - u * subs_) * kGroup, mine, inside);
      }
      octets_ += static_cast<int>(end - u);
      if (octets_ >= kMoveEvery && of_.state.sketched != 0) move_sketch(item.stripe);
    }
  }

  // Hashes of the blocks of octets [first, first + n), where their turns say.
  GRADTAIL_DEVICE void prepare(std::uint64_t key, std::int64_t first, int n) {
    for (int e = lane_; e < n * kGroup; e += kLanes) {
      const std::int64_t octet = first + e / kGroup;
      const int turn = e % kGroup;
      const int added = static_cast<int>(hash64(key, kLaneStream, static_cast<std::uint64_t>(octet)) >> 61);
      const int k = (turn - added) & (kGroup - 1);
      const SketchBlock block = sketch_block(key, octet * kGroup + k, of_.state.buckets);
      shared_.entries[e] = make_uint4(block.low, block.high, static_cast<std::uint32_t>(block.shift),
                                      static_cast<std::uint32_t>(k) << log2_r_);
    }
  }

  // The groups of eight blocks that lie in this thread's buckets. `from`: index of the octet's first element.
  template <typename Raw>
  GRADTAIL_DEVICE void run_octet(const BufferView& view, const Run& run, std::int64_t from, const uint4* entries,
                                 int mine, bool inside) {
    const auto* const base = reinterpret_cast<const Raw*>(run.base + static_cast<std::uint64_t>(from) * sizeof(Raw));
    const int groups = (1 << log2_r_) / kGroup;
    std::uint32_t later = 0;  // turns whose group needs a look at each value
    if constexpr (!kWide) {
      if (inside) later = run_inside(base, entries, mine, groups);
    }
    const std::int64_t low = run.first - from, high = run.last - from;
    if (kWide || !inside) {
      for (int turn = 0; turn < kGroup; ++turn) {
        const int offset = offset_of(entries[turn], mine, groups);
        if (offset + kGroup > low && offset < high) later |= 1u << turn;
      }
    }
    while (later != 0) {
      const int turn = __ffs(static_cast<int>(later)) - 1;
      later &= later - 1;
      take_slowly(view, base, from, low, high, run.aligned, turn, entries[turn], mine, groups);
    }
    sums_.move(shared_.totals);
  }

  // All of an octet is there and aligned. Returns the turns whose group was left alone.
  template <typename Raw>
  GRADTAIL_DEVICE std::uint32_t run_inside(const Raw* base, const uint4* entries, int mine, int groups) {
    constexpr int kAhead = sizeof(Raw) == 4 ? 2 : 4;  // groups asked for before the first is used
    std::uint32_t later = 0;
    GRADTAIL_UNROLL
    for (int begin = 0; begin < kGroup; begin += kAhead) {
      Group<Raw> group[kAhead];
      GRADTAIL_UNROLL
      for (int k = 0; k < kAhead; ++k) group[k].load(base + offset_of(entries[begin + k], mine, groups), true);
      GRADTAIL_UNROLL
      for (int k = 0; k < kAhead; ++k)
        if (!take(group[k], begin + k, entries[begin + k], mine, groups)) later |= 1u << (begin + k);
    }
    return later;
  }

  // Offset within the octet of the group that block `entry` has in this thread's buckets.
  GRADTAIL_DEVICE static int offset_of(const uint4& entry, int mine, int groups) {
    return static_cast<int>(entry.w) + ((mine - static_cast<int>(entry.z)) & (groups - 1)) * kGroup;
  }

  // The signs of a group; bit l is that of its value l.
  GRADTAIL_DEVICE static std::uint32_t signs_of(const uint4& entry, int mine, int groups) {
    const int position = ((mine - static_cast<int>(entry.z)) & (groups - 1)) * kGroup;
    return hash32(entry.x, entry.y, static_cast<std::uint32_t>(position / kSignsAWord)) >> (position % kSignsAWord);
  }

  // Eight finite values that go with the scale of the sums; false, and nothing has changed, if they are others.
  template <typename Words>
  GRADTAIL_DEVICE bool take(const Words& words, int turn, const uint4& entry, int mine, int groups) {
    float x[kGroup], largest = 0, sum = 0;
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) {
      x[l] = words.value(l);
      largest = fmaxf(largest, fabsf(x[l]));
      sum += x[l];
    }
    if (!sums_.fits(largest) || !(fabsf(sum) <= FLT_MAX)) return false;  // a NaN is in no maximum
    sums_.max_abs = fmaxf(sums_.max_abs, largest);
    sums_.add(x, sum);
    const std::uint32_t signs = signs_of(entry, mine, groups);
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) {
      zeros_ += x[l] == 0;
      histogram_.count(bits_of(x[l]));
      Acc& acc = acc_[(l + turn) & (kGroup - 1)];
      acc = fmaf(with_sign(x[l], signs, l), kSketchScale, acc);
    }
    return true;
  }

  // What there is of a group, whatever its values.
  template <typename Raw>
  GRADTAIL_DEVICE void take_slowly(const BufferView& view, const Raw* base, std::int64_t from, std::int64_t low,
                                   std::int64_t high, bool aligned, int turn, const uint4& entry, int mine,
                                   int groups) {
    const int offset = offset_of(entry, mine, groups);
    const std::uint32_t signs = signs_of(entry, mine, groups);
    Acc x[kGroup], largest = 0, sum = 0;
    std::uint32_t there = 0;
    if (!kWide && aligned && offset >= low && offset + kGroup <= high) {
      Group<std::conditional_t<kWide, float, Raw>> group;
      group.load(reinterpret_cast<const std::conditional_t<kWide, float, Raw>*>(base + offset), true);
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) x[l] = group.value(l);
      there = 0xff;
    } else {
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) {
        const bool is = offset + l >= low && offset + l < high;
        x[l] = is ? static_cast<Acc>(value_of(base[offset + l])) : Acc{0};
        there |= static_cast<std::uint32_t>(is) << l;
      }
    }
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) {
      if ((there >> l & 1) != 0 && !count(view, x[l], from + offset + l)) x[l] = 0;
      largest = largest_of(largest, x[l]);
      sum += x[l];
    }
    if (!sums_.fits(largest)) sums_.rescale(shared_.totals, largest);
    sums_.max_abs = largest_of(sums_.max_abs, largest);
    if (is_overflow(sum))
      add_singly(x);
    else
      sums_.add(x, sum);
    turn_and_add(x, signs, turn);
  }

  // acc[(l + turn) % 8] += +-x[l] for a turn that is not known beforehand: registers have no index.
  GRADTAIL_DEVICE void turn_and_add(Acc (&x)[kGroup], std::uint32_t signs, int turn) {
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) x[l] = with_sign(x[l], signs, l) * static_cast<Acc>(kWide ? 1.0f : kSketchScale);
    GRADTAIL_UNROLL
    for (int bit = 1; bit < kGroup; bit *= 2) {
      Acc turned[kGroup];
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) turned[l] = (turn & bit) != 0 ? x[(l - bit) & (kGroup - 1)] : x[l];
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) x[l] = turned[l];
    }
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) acc_[l] += x[l];
  }

  GRADTAIL_DEVICE static float largest_of(float a, float b) { return fmaxf(a, fabsf(b)); }
  GRADTAIL_DEVICE static double largest_of(double a, double b) { return fmax(a, fabs(b)); }
  GRADTAIL_DEVICE static bool is_overflow(float sum) { return !(fabsf(sum) <= FLT_MAX); }
  GRADTAIL_DEVICE static bool is_overflow(double) { return false; }  // sums in double are of scaled values

  // Values whose sum overflows.
  GRADTAIL_DEVICE void add_singly(const Acc (&x)[kGroup]) {
    for (int l = 0; l < kGroup; ++l) {
      Acc one[kGroup] = {x[l]};
      sums_.add(one, x[l]);
    }
  }

  // Count one value; false if it is not finite.
  GRADTAIL_DEVICE bool count(const BufferView& view, Acc value, std::int64_t index) {
    RowIntegers& row = of_.state.row_integers[view.row];
    const float single = static_cast<float>(value);
    if (!(fabs(value) <= static_cast<Acc>(kWide ? DBL_MAX : static_cast<double>(FLT_MAX)))) {
      atomicAdd(value != value ? &row.nan : value < 0 ? &row.neginf : &row.posinf, 1ull);
      atomicMin(&row.first_nonfinite, static_cast<long long>(index));
      atomicMin(&of_.plan.view_integers[view_].first_nonfinite, static_cast<long long>(index));
      return false;
    }
    zeros_ += value == 0;
    if (kWide) {
      const bool overflowed = !is_finite(single);
      const bool vanished = value != 0 && (bits_of(single) & kMagnitudeMask) == 0;
      if (overflowed) atomicAdd(&row.overflowed, 1ull);
      if (vanished) atomicAdd(&row.vanished, 1ull);
      if (overflowed || vanished) return true;
    }
    histogram_.count(bits_of(single));
    return true;
  }

  // ---- what is left at the end of an item

  GRADTAIL_DEVICE static double warp_sum(double x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
    return x;
  }

  // The largest of all threads' values, none negative.
  GRADTAIL_DEVICE double team_max(double x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(kAllLanes, x, lanes));
    __syncthreads();
    if (lane_ % 32 == 0) shared_.max_abs[lane_ / 32] = x;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) x = fmax(x, shared_.max_abs[w]);
    return x;
  }

  GRADTAIL_DEVICE void end_item(int i, const Item& item) {
    const double largest = team_max(static_cast<double>(sums_.max_abs));
    const int exponent = exponent_of(largest);
    for (int p = 0; p < 4; ++p) {
      const double own = shared_.totals.sum[p][lane_] * power_of_two((p + 1) * (sums_.exponent - exponent));
      const double sum = warp_sum(own);
      if (lane_ % 32 == 0) shared_.sums[lane_ / 32][p] = sum;
    }
    std::uint32_t zeros = zeros_;
    for (int lanes = 16; lanes > 0; lanes /= 2) zeros += __shfl_xor_sync(kAllLanes, zeros, lanes);
    const BufferView& view = of_.plan.views[item.view];
    if (lane_ % 32 == 0 && zeros > 0)
      atomicAdd(&of_.state.row_integers[view.row].zeros, static_cast<unsigned long long>(zeros));
    __syncthreads();
    ItemSums& out = of_.plan.item_sums[i];
    if (lane_ < 4) {
      double sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += shared_.sums[w][lane_];
      out.sum[lane_] = sum;
    }
    if (lane_ == 0) {
      out.max_abs = largest;
      out.exponent = exponent;
      unsigned long long pattern;
      memcpy(&pattern, &largest, sizeof pattern);
      atomicMax(&of_.plan.view_integers[item.view].max_abs, pattern);
    }
  }

  // Add the registers of the sketch to the chain's slot and to the item's own small sketch, and empty them.
  GRADTAIL_DEVICE void move_sketch(int stripe) {
    const std::int64_t width = std::int64_t{of_.plan.stripe} * of_.plan.stripes;
    Acc* const slot = sketch_of<Acc>(of_.plan) + chain_ * width + stripe * of_.plan.stripe + lane_ * kGroup;
    const bool first = (stored_ >> stripe & 1) == 0;
    GRADTAIL_UNROLL
    for (int a = 0; a < kGroup; ++a) slot[a] = first ? acc_[a] : slot[a] + acc_[a];
    stored_ |= 1ull << stripe;
    octets_ = 0;
    if (of_.state.fold > 0) {  // buckets are joined modulo 128: those of lanes that are 16 apart
      GRADTAIL_UNROLL
      for (int a = 0; a < kGroup; ++a) {
        const Acc both = acc_[a] + __shfl_xor_sync(kAllLanes, acc_[a], 16);
        if (lane_ % 32 < 16) shared_.folds[lane_ / 32][lane_ % 16 * kGroup + a] = both;
      }
      __syncthreads();
      for (int b = lane_; b < kFold; b += kLanes) {
        Acc sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += shared_.folds[w][b];
        shared_.fold[b] += sum;
      }
      __syncthreads();
    }
    GRADTAIL_UNROLL
    for (int a = 0; a < kGroup; ++a) acc_[a] = 0;
  }

  const PassArguments& of_;
  Shared& shared_;
  Histogram<kMode> histogram_;
  Sums sums_;
  Acc acc_[kGroup];
  std::uint32_t zeros_ = 0;
  std::uint64_t stored_ = 0;  // stripes that the chain's slot has
  int chain_ = 0, view_ = 0;
  int octets_ = 0;  // since the sketch left the registers
  int lane_, log2_r_, subs_, sub_;
};

template <int kLanes, BinMode kMode, bool kWide>
GRADTAIL_KERNEL void GRADTAIL_BOUNDS(kLanes, kWide ? 1 : 1024 / kLanes) pass_kernel(GRADTAIL_CONSTANT PassArguments of) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  Pass<kLanes, kMode, kWide>(of, memory).run();
}

}  // namespace gradtail::cuda

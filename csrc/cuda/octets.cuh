// What one thread gathers of an item, and how it takes groups: octets that are all there by the fast road, whose
// loop the whole pass depends on, and what is left by the slow one. benchmarks/gpu/SASS.md counts the instructions.
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
#include "tensor_sums.cuh"

namespace gradtail::cuda {

// Where the groups of a thread lie in the blocks of the map.
struct Columns {
  int first;  // position in a block of no shift, in elements
  int mask;   // elements of a block, less one group

  GRADTAIL_DEVICE int position(const uint4& entry) const { return (first - static_cast<int>(entry.z)) & mask; }
};

// The signs of a group; bit l is that of its value l.
GRADTAIL_DEVICE std::uint32_t signs_of(const uint4& entry, int position) {
  return turned_right(hash32(entry.x, entry.y, static_cast<std::uint32_t>(position) / kSignsAWord), position);
}

// The values of an item that lie side by side: whole-parameter indices [first, last), index i at base + i * itemsize.
struct Run {
  std::int64_t first, last;
  std::uint64_t base;
  bool aligned;
};

// How octets follow one another: read from shared memory at each, so that no register keeps it.
struct Walk {
  std::int32_t first, end, step;  // of the index of an octet's first entry
  std::int32_t stride;            // elements
};

// What there is of an octet: elements [low, high).
struct Extent {
  std::int64_t from;  // index of the octet's first element
  std::int64_t low, high;
};

template <int kLanes, BinMode kMode, bool kWide>
class Taker {
 public:
  using Acc = std::conditional_t<kWide, double, float>;
  using Sums = std::conditional_t<kWide, WideSums<kLanes>, NarrowSums<kLanes>>;

  Sums sums;
  Acc acc[kGroup];  // of the sketch, times kSketchScale where they are narrow

  // Octets that are all there, aligned, of narrow dtypes; `at` is the index of the first one's entry. Stops at the
  // octet of which a group was left alone, and returns the turns of it; at the last one 0. kBits: of the histogram, -1
  // for any; not kScaled: the scale is 1.
  template <typename Raw, int kBits, bool kScaled>
  GRADTAIL_DEVICE std::uint32_t take_octets(const Raw* base, const uint4* entries, int& at, const Walk& walk,
                                            Columns columns, Totals<kLanes>& totals, Histogram<kMode>& histogram) {
    // The lanes of a warp go together then: the scale is 1 for all of them, and they turn back at the same octet.
    constexpr bool kTensor = kTensorSums && std::is_same_v<Raw, Bfloat> && !kScaled;
    // Groups asked for before the first is used. With blocks of 8 terms on tensor cores registers do for two.
    constexpr int kAhead = sizeof(Raw) == 4 || (kTensor && kTensorTerms == 8) ? 2
                           : kMode == BinMode::kWindow                        ? kHalvesAheadOfWindow
                                                                              : kHalvesAhead;
    TensorSums tensor;
    const std::uint32_t limit = bits_of(kScaled ? sums.limit() : float_power_of_two(kUnscaledHeadroom));
    while (true) {
      std::uint32_t later = 0;
      GRADTAIL_UNROLL
      for (int begin = 0; begin < kGroup; begin += kAhead) {
        Group<Raw> group[kAhead];
        std::uint32_t signs[kAhead];
        GRADTAIL_UNROLL
        for (int k = 0; k < kAhead; ++k) {
          const uint4 entry = entries[at + begin + k];
          const int position = columns.position(entry);
          group[k].load(base + (static_cast<int>(entry.w) + position));
          signs[k] = signs_of(entry, position);
        }
        const bool fitting = fits<Raw, kAhead>(group, limit, totals, histogram);
        if constexpr (kTensor) add_together(tensor, group, fitting, totals);
        if (!fitting) {
          later |= ((1u << kAhead) - 1) << begin;
          continue;
        }
        typename Histogram<kMode>::template Counter<kBits> counter(histogram);
        GRADTAIL_UNROLL
        for (int k = 0; k < kAhead; ++k) take<kScaled, kTensor ? 2 : 1>(group[k], begin + k, signs[k], counter);
      }
      if constexpr (kTensor) sums.part[0] = tensor.taken();
      sums.move(totals);
      if (!kScaled) sums.inverse = 1;  // as it was: no register keeps it meanwhile
      if (together<kTensor>(later != 0)) return later;
      if (at + walk.step >= walk.end) return 0;
      at += walk.step;
      base += walk.stride;
    }
  }

  // What there is of the group of one turn, whatever its values. `count` is told of every value and of its index in
  // the octet, and returns whether it is finite.
  template <typename Raw, typename Count>
  GRADTAIL_DEVICE void take_slowly(const Raw* base, const Extent& extent, int turn, const uint4& entry, Columns columns,
                                   Totals<kLanes>& totals, Count&& count) {
    const int position = columns.position(entry), offset = static_cast<int>(entry.w) + position;
    if (offset + kGroup <= extent.low || offset >= extent.high) return;
    std::uint32_t finite = 0;
    GRADTAIL_ROLLED  // this is seldom run, and is not to ask for registers
        for (int l = 0; l < kGroup; ++l) {
      const bool is = offset + l >= extent.low && offset + l < extent.high;
      if (is && count(static_cast<Acc>(value_of(base[offset + l])), offset + l)) finite |= 1u << l;
    }
    Acc x[kGroup], largest = 0;
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) {
      x[l] = (finite >> l & 1) != 0 ? static_cast<Acc>(value_of(base[offset + l])) : Acc{0};
      largest = largest_of(largest, x[l]);
    }
    bool beyond = false;
    if (!sums.fits(largest)) {
      if constexpr (!kTensorSums || kWide)
        sums.rescale(totals, largest);
      else if (sums.inverse == 1)
        beyond = true;
      else
        sums.template rescale<false>(totals, largest);
    }
    sums.max_abs = largest_of(sums.max_abs, largest);
    turn_and_add(x, signs_of(entry, position), turn);
    if constexpr (kTensorSums && !kWide) {
      if (beyond) return sums.add_beyond(totals, x);
    }
    if constexpr (!kWide) {
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) x[l] *= sums.inverse;
    }
    sums.add(x);
  }

 private:
  // Whether it is so for this lane, or if kTensor for any lane of the warp.
  template <bool kTensor>
  GRADTAIL_DEVICE static bool together(bool is) {
    if constexpr (kTensor) return !of_all_lanes(!is);
    return is;
  }

  // S1 of groups: on tensor cores if all lanes of the warp take theirs now, else by those that do, each for itself.
  template <typename Raw, int kGroups>
  GRADTAIL_DEVICE static void add_together(TensorSums& tensor, const Group<Raw> (&group)[kGroups], bool fitting,
                                           Totals<kLanes>& totals) {
    if (of_all_lanes(fitting)) {
      GRADTAIL_UNROLL
      for (int k = 0; k < kGroups; ++k) tensor.add(group[k].w);
    } else if (fitting) {
      GRADTAIL_UNROLL
      for (int k = 0; k < kGroups; ++k) {
        float sum = group[k].value(0);
        GRADTAIL_UNROLL
        for (int l = 1; l < kGroup; ++l) sum += group[k].value(l);
        totals.sum[0][asked_lane()] += static_cast<double>(sum);
      }
    }
  }

  // Whether groups have finite values alone, which go with the scale and of which shared memory has counters. If so
  // their zeros are counted, and their largest magnitude is remembered.
  template <typename Raw, int kGroups>
  GRADTAIL_DEVICE bool fits(const Group<Raw> (&group)[kGroups], std::uint32_t limit, Totals<kLanes>& totals,
                            const Histogram<kMode>& histogram) {
    Extremes<Raw> extremes(group[0]);
    GRADTAIL_UNROLL
    for (int i = 1; i < kGroups * Group<Raw>::kWords; ++i)
      extremes.add(group[i / Group<Raw>::kWords].word(i % Group<Raw>::kWords));
    const std::uint32_t largest = extremes.largest();
    std::uint32_t smallest = extremes.smallest();
    if (largest > limit) return false;
    if (smallest == 0) {
      std::uint32_t found = 0;
      GRADTAIL_UNROLL
      for (int k = 0; k < kGroups; ++k) found += group[k].zeros();
      if constexpr (kMode == BinMode::kWindow) {  // which has a counter for zeros, but the others must lie in it
        std::uint32_t below = ~0u;                // one less than the smallest of them
        GRADTAIL_UNROLL
        for (int i = 0; i < kGroups * kGroup; ++i) {
          const std::uint32_t x = (bits_of(group[i / kGroup].value(i % kGroup)) & kMagnitudeMask) - 1;
          below = x < below ? x : below;
        }
        smallest = below + 1;
      }
      if (!histogram.holds(smallest, largest)) return false;
      totals.zeros[asked_lane()] += found;
    } else if (!histogram.holds(smallest, largest)) {
      return false;
    }
    sums.max_abs = fmaxf(sums.max_abs, float_of(largest));
    return true;
  }

  template <bool kScaled, int kFrom, typename Raw, typename Counter>
  GRADTAIL_DEVICE void take(const Group<Raw>& group, int turn, std::uint32_t signs, Counter& counter) {
    float x[kGroup];
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) {
      x[l] = group.value(l);
      float& bucket = acc[(l + turn) & (kGroup - 1)];
      bucket = fmaf((signs & 1u << l) != 0 ? -x[l] : x[l], kSketchScale, bucket);
    }
    GRADTAIL_UNROLL
    for (int i = 0; i < Group<Raw>::kWords; ++i) {
      if constexpr (std::is_same_v<Raw, Bfloat>)
        counter.count_both(group.word(i));
      else if constexpr (std::is_same_v<Raw, float>)
        counter.count(group.word(i));
      else
        counter.count(bits_of(x[2 * i])), counter.count(bits_of(x[2 * i + 1]));
    }
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) x[l] = kScaled ? x[l] * sums.inverse : x[l];
    sums.template add<kFrom>(x);
  }

  // acc[(l + turn) % 8] += +-value[l] for a turn that is not known beforehand: registers have no index.
  GRADTAIL_DEVICE void turn_and_add(const Acc (&value)[kGroup], std::uint32_t signs, int turn) {
    Acc x[kGroup];
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l)
      x[l] = with_sign(value[l], signs, l) * static_cast<Acc>(kWide ? 1.0f : kSketchScale);
    GRADTAIL_UNROLL
    for (int bit = 1; bit < kGroup; bit *= 2) {
      Acc turned[kGroup];
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) turned[l] = (turn & bit) != 0 ? x[(l - bit) & (kGroup - 1)] : x[l];
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) x[l] = turned[l];
    }
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) acc[l] += x[l];
  }

  GRADTAIL_DEVICE static float largest_of(float a, float b) { return fmaxf(a, fabsf(b)); }
  GRADTAIL_DEVICE static double largest_of(double a, double b) { return fmax(a, fabs(b)); }
};

}  // namespace gradtail::cuda
